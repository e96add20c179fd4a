# Fetches packages and all that they need into a folder: sh root_fetch.sh ROOT INTO PACKAGE…, in a mount namespace of
# its own, with this machine's network. The Debian in ROOT stays as it is.
set -e
root=$1 into=$2
shift 2
mount -t tmpfs -o size=2g,mode=755 tmpfs /mnt
mkdir /mnt/upper /mnt/work /mnt/root
mount -t overlay overlay -o lowerdir="$root",upperdir=/mnt/upper,workdir=/mnt/work /mnt/root
cp /etc/resolv.conf /mnt/root/etc/resolv.conf
mount --bind "$into" /mnt/root/var/cache/apt/archives
mount -t proc proc /mnt/root/proc
chroot /mnt/root sh -ec 'apt-get -q update; apt-get -q -y install --download-only --no-install-recommends "$@"' sh "$@"
