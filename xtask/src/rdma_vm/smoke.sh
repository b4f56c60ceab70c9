# Whether the machine has what it is said to have: each device works, by the tools of rdma-core, and
# what goes from a device to its twin crosses the veth.
set -eu

# Waits until something listens at a TCP port, which iWARP's connections use as well.
listening() { # PORT
    entry=":$(printf %04X "$1") [0-9A-F]*:0000 0A "
    tries=0
    until grep -q "$entry" /proc/net/tcp /proc/net/tcp6; do
        tries=$((tries + 1))
        [ $tries -lt 300 ] || { echo "nothing listens at port $1"; exit 1; }
        sleep 0.1
    done
}

received() { # NETDEV
    cat /sys/class/net/"$1"/statistics/rx_packets
}

crossed() { # NETDEV BEFORE LEAST
    now=$(received "$1")
    [ $((now - $2)) -ge "$3" ] || { echo "$1 received $((now - $2)) packets, not $3"; exit 1; }
}

devices=$(ibv_devices)
links=$(rdma link)
echo "$links"
for device in rxe0 rxe1 siw0 siw1; do
    case $devices in *$device*) ;; *) echo "libibverbs has no $device"; exit 1 ;; esac
    case $links in *"$device/1 state ACTIVE"*) ;; *) echo "$device is not active"; exit 1 ;; esac
done

echo "RoCE v2 from rxe1 to rxe0, by a GID"
before=$(received rxe0v)
ibv_rc_pingpong -d rxe0 -g 1 -n 100 >/tmp/pingpong &
listening 18515
ibv_rc_pingpong -d rxe1 -g 1 -n 100 10.77.0.1
wait $!
crossed rxe0v "$before" 100

for pair in rxe:10.77.0 siw:10.77.1; do
    type=${pair%:*} net=${pair#*:}
    echo "$type, by rdma_cm"
    before=$(received "${type}0v")
    rping -s -a "$net.1" -C 10 &
    # rxe's rdma_cm has no TCP port to look for; its client tries again.
    [ "$type" = rxe ] || listening 7174
    tries=0
    until rping -c -V -a "$net.1" -I "$net.2" -C 10; do
        tries=$((tries + 1))
        [ $tries -lt 100 ] || exit 1
        sleep 0.1
    done
    wait $! || :
    crossed "${type}0v" "$before" 20
done
echo "all four devices work"
