# Runs a command in a Debian, or boots it:  sh root_run.sh ROOT WORK NAME FOLDER PLACE COMMAND...
# Its files are those of ROOT, which is not changed, and what WORK has above it; FOLDER of the machine is found at PLACE,
# and cannot be written there. With the command "boot" systemd is its process 1, in a control group of its own; any
# other has the machine's settings for the kernel in front of it, and cannot change them.
set -e
root=$1 work=$2 name=$3 folder=$4 place=$5
shift 5
mkdir -p "$work/upper" "$work/work" "$work/merged"
mount -t overlay overlay -o lowerdir="$root",upperdir="$work/upper",workdir="$work/work" "$work/merged"
cd "$work/merged"
mkdir -p ".$place"
mount --bind "$folder" ".$place"
mount -o remount,bind,ro ".$place"
mount -t proc proc proc
mount -t tmpfs -o mode=755 tmpfs dev
for node in null zero full random urandom tty; do
    touch "dev/$node"
    mount --bind "/dev/$node" "dev/$node"
done
mkdir dev/pts dev/shm
mount -t devpts -o newinstance,ptmxmode=0666,mode=620 devpts dev/pts
mount -t tmpfs tmpfs dev/shm
ln -s pts/ptmx dev/ptmx
ln -s /proc/self/fd dev/fd
ln -s /proc/self/fd/0 dev/stdin
mount -t sysfs -o ro sysfs sys
mount -t tmpfs -o mode=755 tmpfs run
mount -t tmpfs -o mode=1777 tmpfs tmp
echo "$name" >etc/hostname
hostname "$name"
printf '127.0.0.1 localhost\n::1 localhost\n127.0.1.1 %s\n' "$name" >etc/hosts
if [ "$1" = boot ]; then
    mount -t cgroup2 cgroup2 sys/fs/cgroup
    # The kernel's settings are the machine's, and must stay as they are. They cannot be covered: no sandbox could mount
    # /proc then.
    ln -sf /dev/null etc/systemd/system/systemd-sysctl.service
    ln -sf /dev/null etc/systemd/system/systemd-modules-load.service
    ip link set lo up
    set -- env -i container=other PATH=/usr/sbin:/usr/bin:/sbin:/bin /lib/systemd/systemd
else
    mount --bind proc/sys proc/sys
    mount -o remount,bind,ro proc/sys
    cp /etc/resolv.conf etc/resolv.conf
fi
pivot_root . mnt
umount -l /mnt
cd /
exec "$@"
