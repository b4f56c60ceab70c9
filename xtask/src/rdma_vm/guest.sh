# The guest's main program, in the host's files: makes the devices, runs the job, ends the machine.
# RUN is the folder of this run on the host: guest.sh, job.sh, shares.

export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin

power_off() {
    echo b >/proc/sysrq-trigger
    sleep 10
}

die() {
    echo "guest: $* failed" >/dev/console
    power_off
}

# Two devices of one type over the two ends of a veth, with the addresses NET.1 and NET.2.
#
# Both addresses are local, and what is local goes by the loopback. So the local table is looked up
# last for what is sent from one to the other: that goes out of the sender's end. What comes in by
# an end is looked up there first.
pair() { # TYPE NET TABLE
    echo "link add ${1}0v mtu 9000 type veth peer name ${1}1v mtu 9000"
    for end in 0 1; do
        own=$2.$((end + 1)) twin=$2.$((2 - end)) table=$(($3 + end))
        cat <<BATCH
addr add $own/24 dev $1${end}v
link set $1${end}v up
route add $2.0/24 dev $1${end}v src $own table $table
rule add pref 10 iif $1${end}v lookup local
rule add pref 20 iif lo from $own to $twin lookup $table
BATCH
        echo "link add $1$end type $1 netdev $1${end}v" >>/run/rdma.batch
    done
}

# The kernel would drop packets from an address of its own, and answer ARP for either by both ends.
for conf in all default; do
    cd /proc/sys/net/ipv4/conf/$conf || die "cd"
    echo 1 >accept_local
    echo 0 >rp_filter
    echo 1 >arp_ignore
    echo 2 >arp_announce
done
cd /
mkdir -p /run
{
    echo "link set lo up"
    pair rxe 10.77.0 100
    pair siw 10.77.1 102
    echo "rule add pref 100 lookup local"
    echo "rule del pref 0"
} >/run/ip.batch
# Batches, as each start of a program takes 0.2 s when emulated.
ip -batch /run/ip.batch || die "ip"
rdma -b /run/rdma.batch || die "rdma"

number=0
while IFS= read -r dir; do
    mount -t 9p -o trans=virtio,version=9p2000.L,msize=512000 share$number "$dir" || die "mount $dir"
    number=$((number + 1))
done <"$RUN/shares"

for port in /sys/class/virtio-ports/*; do
    read -r name <"$port/name"
    case $name in
        stdout) stdout=/dev/${port##*/} ;;
        stderr) stderr=/dev/${port##*/} ;;
        status) status=/dev/${port##*/} ;;
    esac
done

# A port can be opened once, but a job may open /dev/stderr: it gets pipes.
mkfifo /run/stdout /run/stderr
cat </run/stdout >"$stdout" &
relays=$!
cat </run/stderr >"$stderr" &
relays="$relays $!"

ulimit -l unlimited
ulimit -n 65536
setsid sh "$RUN/job.sh" </dev/null >/run/stdout 2>/run/stderr
code=$?

# What the job left running holds the pipes open. Kernel threads are deaf to it.
for process in /proc/[0-9]*; do
    pid=${process#/proc/}
    case " 1 $relays " in
        *" $pid "*) ;;
        *) kill -KILL "$pid" 2>/dev/null ;;
    esac
done
# shellcheck disable=SC2086 # two process ids
wait $relays
echo $code >"$status"
power_off
