#!/bin/sh
# The guest's first program, busybox's shell: loads modules and puts the host's files, which only can
# be read, under a file system in memory, which takes the writes. When it fails, the kernel panics
# and the machine ends.
#
# From the kernel's command line come MODULES and RUN, two folders of the host.

die() {
    echo "init: $* failed"
    exit 1
}

while read -r module; do
    insmod "/modules/$module" || die "insmod $module"
done </modules/order

mount -t devtmpfs dev /dev && mount -t proc proc /proc && mount -t sysfs sys /sys || die "mount"
mount -t 9p -o ro,trans=virtio,version=9p2000.L,msize=512000,cache=loose host /host || die "9p"
mount -t tmpfs -o size=80% tmpfs /writes && mkdir /writes/files /writes/work || die "tmpfs"
mount -t overlay -o lowerdir=/host,upperdir=/writes/files,workdir=/writes/work overlay /root ||
    die "overlay"

for dir in dev proc sys; do
    mount --move /$dir /root/$dir || die "move $dir"
done
cd /root/dev || die "cd"
mkdir pts shm
mount -t devpts devpts pts
mount -t tmpfs shm shm
ln -s /proc/self/fd fd
ln -s fd/0 stdin
ln -s fd/1 stdout
ln -s fd/2 stderr

# For modprobe: the guest's kernel is not the host's.
modules=/root/lib/modules/$(uname -r)
mkdir -p "$modules"
mount --bind "/host$MODULES" "$modules" || die "bind modules"

exec chroot /root /bin/sh "$RUN/guest.sh"
