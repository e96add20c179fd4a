# Process 1 of a host that a test makes: sh host_init.sh NAME FIRST_UID LAST_UID ROOT PACKAGES [FOLDER PLACE]... Its
# namespaces are there already. Its files are those of the folder ROOT, the machine's or a Debian's, with all that changes
# in memory; /run and /tmp are empty, and so is /home of the machine's. A Debian gets its packages from the folder PACKAGES
# alone. Each FOLDER of the machine is found at PLACE, and cannot be written there. Most settings of the kernel are the
# machine's and cannot be changed; those of the network are the host's own.
set -e
name=$1 first=$2 last=$3 root=$4 packages=$5
shift 5
size=64m
[ -z "$packages" ] || size=4g
mount -t tmpfs -o size=$size,mode=755 tmpfs /mnt
mkdir /mnt/upper /mnt/work /mnt/root
mount -t overlay overlay -o lowerdir="$root",upperdir=/mnt/upper,workdir=/mnt/work /mnt/root
cd /mnt/root
while [ $# != 0 ]; do
    mkdir -p ".$2"
    mount --bind "$1" ".$2"
    mount -o remount,bind,ro ".$2"
    shift 2
done
if [ -n "$packages" ]; then
    mkdir -p srv/packages
    mount --bind "$packages" srv/packages
    mount -o remount,bind,ro srv/packages
fi
mount --rbind /dev dev
mount -t tmpfs tmpfs dev/shm
mount -t proc proc proc
mount -t sysfs -o ro sysfs sys
mount -t tmpfs -o size=32m,mode=755 tmpfs run
mount -t tmpfs -o size=64m,mode=1777 tmpfs tmp
if [ -z "$packages" ]; then
    # What other tests do to the machine's own would show through.
    mount -t tmpfs -o size=64m,mode=755 tmpfs home
    mount -t tmpfs -o size=1m,mode=750 tmpfs etc/sudoers.d
fi

# The kernel lets a sandbox mount /proc only where another one is to be seen as a whole: one that only root reaches, and
# where nobody looks for settings.
mkdir -m 700 mnt/whole
mkdir mnt/whole/proc
mount -t proc proc mnt/whole/proc
mount --bind proc/sys proc/sys
mount -o remount,bind,ro proc/sys
mount --bind mnt/whole/proc/sys/net proc/sys/net

hostname "$name"
mkdir old
pivot_root . old
umount -l /old
rmdir /old
cd /

# The users that it makes have numbers that nobody else has: the kernel knows them by these alone, here and on the
# machine.
sed -i '/^SYS_[UG]ID_M/d' etc/login.defs
echo "SYS_UID_MIN $((first + 1))
SYS_UID_MAX $last
SYS_GID_MIN $((first + 1))
SYS_GID_MAX $last" >>etc/login.defs
printf '127.0.0.1 localhost\n::1 localhost\n127.0.1.1 %s\n' "$name" >etc/hosts
mkdir -p -m 755 run/sshd run/lock etc/ssh/host

if [ -n "$packages" ]; then
    rm -rf etc/apt/sources.list.d etc/resolv.conf
    echo 'deb [trusted=yes] file:/srv/packages ./' >etc/apt/sources.list
    mkdir -m 700 -p root/.ssh
else
    # As on a host that has never seen a console.
    sed -i '/^\(easydcim_vnc_\|ipmiproxyd\)/d' etc/passwd etc/group etc/shadow etc/gshadow
    echo "ipmiproxyd:x:$first:$first::/home/ipmiproxyd:/bin/sh" >>etc/passwd
    echo "ipmiproxyd:x:$first:" >>etc/group
    echo "ipmiproxyd:*:19000:0:99999:7:::" >>etc/shadow
    rm -rf usr/local/lib/ipmiproxyd var/cache/ipmiproxyd
    mkdir -m 755 usr/local/lib/ipmiproxyd
    mkdir -m 700 -p home/ipmiproxyd/.ssh
    chown -R "$first:$first" home/ipmiproxyd
fi

# The kernel buries the children of whoever ignores their end.
trap '' CHLD
echo up
exec sleep infinity
