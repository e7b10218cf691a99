#!/usr/bin/env bash
# Records the demo capture: real programs in three network namespaces, seen at the router's client-side interface.
#
#   sudo demo/record.sh OUTPUT.pcap
#
# Needs root on Linux. Installs nothing (it says which Debian packages are missing), touches no interface and no
# address outside its own namespaces, and removes those and every process in them when it ends, failed or not.
# A program that does not behave as the scene expects, a lost packet, or a capture in which something is missing is an
# error, and OUTPUT is then left as it was. Takes about 20 seconds. What is in the capture: README.md beside this.
set -euo pipefail
export LC_ALL=C PATH="/usr/sbin:/usr/bin:/sbin:/bin"
unset http_proxy https_proxy ftp_proxy all_proxy HTTP_PROXY HTTPS_PROXY FTP_PROXY ALL_PROXY no_proxy NO_PROXY

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
readonly here
readonly CLIENT="pc-demo-$$-client" ROUTER="pc-demo-$$-router" SERVER="pc-demo-$$-server"

# The client's network, the server's network, and the addresses of the scenes. None is used outside the namespaces.
readonly CLIENT4=10.77.0.2 CLIENT6=fd77::2 ROUTER4=10.77.0.1 ROUTER6=fd77::1
readonly SERVER4=10.77.1.2 SERVER6=fd77:0:0:1::2
readonly NARROW4=10.77.2.2 NARROW6=fd77:0:0:2::2 # the server again, behind a path MTU of 1300
readonly SILENT4=10.77.3.9 SILENT6=fd77:0:0:3::9 # the router throws away what goes there and says nothing
readonly NOHOST4=10.77.4.9                       # the router answers: host unreachable
readonly DIRECT4=10.77.9.2                       # the client again; replies to it do not pass the router

readonly LIFE=120      # seconds after which every program ends, whatever happened to this script
readonly MAX_BYTES=400000

work=""
declare -A fd_of=() pid_of=()

say() { printf '%s\n' "$*" >&2; }
die() {
    say "record.sh: $*"
    exit 1
}

in_client() { ip netns exec "$CLIENT" timeout -k 1 20 "$@"; }

# Runs PROGRAM in NAMESPACE in the background, its output in LOG; the process ID is in `pid_of[NAME]`.
start() {
    local name=$1 namespace=$2
    shift 2
    ip netns exec "$namespace" timeout -k 1 "$LIFE" "$@" >"$work/$name.log" 2>&1 </dev/null &
    pid_of[$name]=$!
}

# As `start`, with a pipe as standard input, which `type_into NAME` writes to.
start_typed() {
    local name=$1 namespace=$2 fd
    shift 2
    mkfifo "$work/$name.in"
    exec {fd}<>"$work/$name.in"
    fd_of[$name]=$fd
    ip netns exec "$namespace" timeout -k 1 "$LIFE" "$@" >"$work/$name.log" 2>&1 <"$work/$name.in" &
    pid_of[$name]=$!
}

type_into() {
    printf '%s\n' "$2" >&"${fd_of[$1]}"
    sleep 0.1
}

# Ends the program NAME, so that its kernel closes its connection with a FIN.
end() {
    kill "${pid_of[$1]}" 2>/dev/null || true
    wait "${pid_of[$1]}" 2>/dev/null || true
    sleep 0.1
}

# Waits, 5 seconds at most, until the command succeeds.
await() {
    local turn
    for turn in {1..50}; do
        if "$@" >/dev/null 2>&1; then return 0; fi
        sleep 0.1
    done
    die "waited $turn times in vain for: $* (logs: $(tail -n 3 "$work"/*.log 2>/dev/null | tr '\n' ' '))"
}

listens() { # PROTOCOL(t|u) PORT
    [ -n "$(ip netns exec "$SERVER" ss -Hln"$1" "sport = :$2")" ]
}

scene() {
    sleep 0.3
    say "  $*"
}

# Runs a client program whose exit status must be STATUS.
expect() {
    local status=$1 found=0
    shift
    in_client "$@" >"$work/client.log" 2>&1 || found=$?
    [ "$found" -eq "$status" ] || die "exit status $found, not $status: $* ($(tail -n 2 "$work/client.log"))"
}

# curl that reads no configuration of the user and calls from PORT: `curl_from STATUS PORT ARGUMENTS...`
curl_from() {
    local status=$1 port=$2
    shift 2
    expect "$status" curl -q -sS -o /dev/null --max-time 10 --local-port "$port" "$@"
}

# Ends every process in a namespace of this run, first politely.
end_all_in() {
    local namespace=$1 signal=TERM pids turn
    for turn in {1..30}; do
        mapfile -t pids < <(ip netns pids "$namespace")
        [ "${#pids[@]}" -gt 0 ] || return 0
        if [ "$turn" -gt 15 ]; then signal=KILL; fi
        kill -s "$signal" "${pids[@]}" || true
        sleep 0.1
    done
}

cleanup() {
    local status=$? namespace
    trap '' EXIT INT TERM HUP
    for namespace in "$CLIENT" "$SERVER" "$ROUTER"; do
        [ -e "/run/netns/$namespace" ] || continue
        # Not on the terminal: the shell's "Terminated ..." lines, and complaints about processes that were already gone.
        end_all_in "$namespace" 2>/dev/null
        ip netns del "$namespace" || true
    done
    if [ -n "$work" ]; then rm -rf -- "$work"; fi
    exit "$status"
}

require() {
    local missing=() row program package
    for row in ip:iproute2 ss:iproute2 ethtool:ethtool sysctl:procps tcpdump:tcpdump nginx:nginx-light curl:curl \
        dnsmasq:dnsmasq dig:dnsutils ping:iputils-ping traceroute:traceroute vsftpd:vsftpd lftp:lftp \
        nc:netcat-openbsd python3:python3; do
        program=${row%%:*} package=${row##*:}
        command -v "$program" >/dev/null || missing+=("$package")
    done
    if command -v nc >/dev/null && ! nc -h 2>&1 | grep -q OpenBSD; then missing+=(netcat-openbsd); fi
    if [ "${#missing[@]}" -gt 0 ]; then
        die "Debian packages missing: $(printf '%s\n' "${missing[@]}" | sort -u | tr '\n' ' ')"
    fi
    [ "$(id -u)" -eq 0 ] || die "needs root, for network namespaces"
}

# client (lan) ---- (inside) router (outside) ---- (lan) server, and client (direct) ---- (direct) server
build_network() {
    local namespace
    for namespace in "$CLIENT" "$ROUTER" "$SERVER"; do
        ip netns add "$namespace"
        ip netns exec "$namespace" sysctl -q -w net.ipv6.conf.all.disable_ipv6=0 net.ipv6.conf.default.disable_ipv6=0 \
            net.ipv6.conf.default.accept_dad=0 net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.default.rp_filter=0 \
            net.ipv4.icmp_ratelimit=0 net.ipv6.icmp.ratelimit=0
        ip -n "$namespace" link set dev lo up
    done
    ip netns exec "$ROUTER" sysctl -q -w net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1 \
        net.ipv4.conf.all.send_redirects=0 net.ipv4.conf.default.send_redirects=0

    ip link add name lan address 02:00:00:77:00:02 netns "$CLIENT" type veth \
        peer name inside address 02:00:00:77:00:01 netns "$ROUTER"
    ip link add name lan address 02:00:00:77:01:02 netns "$SERVER" type veth \
        peer name outside address 02:00:00:77:01:01 netns "$ROUTER"
    ip link add name direct address 02:00:00:77:09:02 netns "$CLIENT" type veth \
        peer name direct address 02:00:00:77:09:01 netns "$SERVER"

    bring_up "$CLIENT" lan "$CLIENT4/24" "$CLIENT6/64"
    bring_up "$CLIENT" direct "$DIRECT4/30"
    bring_up "$ROUTER" inside "$ROUTER4/24" "$ROUTER6/64"
    bring_up "$ROUTER" outside 10.77.1.1/24 fd77:0:0:1::1/64
    bring_up "$SERVER" lan "$SERVER4/24" "$SERVER6/64"
    bring_up "$SERVER" direct 10.77.9.1/30

    ip -n "$CLIENT" route add default via "$ROUTER4"
    ip -n "$CLIENT" -6 route add default via "$ROUTER6"
    ip -n "$SERVER" route add default via 10.77.1.1
    ip -n "$SERVER" -6 route add default via fd77:0:0:1::1
    ip -n "$SERVER" address add "$NARROW4/32" dev lo
    ip -n "$SERVER" address add "$NARROW6/128" dev lo nodad
    ip -n "$ROUTER" route add "$NARROW4/32" via "$SERVER4" mtu 1300
    ip -n "$ROUTER" -6 route add "$NARROW6/128" via "$SERVER6" mtu 1300
    ip -n "$ROUTER" route add blackhole "$SILENT4/32"
    ip -n "$ROUTER" -6 route add blackhole "$SILENT6/128"
    ip -n "$ROUTER" route add unreachable "$NOHOST4/32"
}

# Addresses on, offloads off (sizes and checksums are then those of a wire), and up: `bring_up NAMESPACE LINK ADDRESS...`
bring_up() {
    local namespace=$1 link=$2 address
    shift 2
    for address in "$@"; do
        case $address in
            *:*) ip -n "$namespace" address add "$address" dev "$link" nodad ;;
            *) ip -n "$namespace" address add "$address" dev "$link" ;;
        esac
    done
    ip netns exec "$namespace" ethtool -K "$link" tx off tso off gso off gro off >/dev/null
    ip -n "$namespace" link set dev "$link" up
}

start_servers() {
    mkdir "$work/www" "$work/www/upload" "$work/body" "$work/ftp" "$work/ftp/incoming" "$work/empty"
    printf 'the demo web server says hello\n' >"$work/www/index.html"
    head -c 98304 < <(seq -f 'portcullis demo line %06g' 1 5000) >"$work/www/large.txt"
    head -c 12288 "$work/www/large.txt" >"$work/www/medium.txt"
    head -c 8192 "$work/www/large.txt" >"$work/ftp/report.txt"
    head -c 4096 "$work/www/large.txt" >"$work/note.txt"
    chown ftp "$work/ftp/incoming"

    cat >"$work/nginx.conf" <<-CONF
	daemon off;
	master_process off;
	pid $work/nginx.pid;
	error_log stderr;
	events {}
	http {
	    access_log off;
	    client_body_temp_path $work/body;
	    server {
	        listen 80;
	        listen [::]:80 ipv6only=on;
	        root $work/www;
	        location /upload/ { dav_methods PUT; }
	    }
	}
	CONF
    start nginx "$SERVER" nginx -e stderr -p "$work" -c "$work/nginx.conf"

    local records=() n
    for n in {0..9}; do
        records+=("--txt-record=big.demo.test,record-$n-$(printf 'x%.0s' {1..190})")
    done
    start dnsmasq "$SERVER" dnsmasq --keep-in-foreground --conf-file=/dev/null --no-resolv --no-hosts --pid-file= \
        --log-facility=- --edns-packet-max=4096 --local=/demo.test/ \
        --host-record="www.demo.test,$SERVER4,$SERVER6" "${records[@]}"

    cat >"$work/vsftpd.conf" <<-CONF
	listen=NO
	listen_ipv6=YES
	background=NO
	isolate=NO
	isolate_network=NO
	seccomp_sandbox=NO
	anonymous_enable=YES
	local_enable=NO
	write_enable=YES
	anon_upload_enable=YES
	anon_umask=022
	anon_root=$work/ftp
	secure_chroot_dir=$work/empty
	connect_from_port_20=YES
	pasv_min_port=42000
	pasv_max_port=42999
	ftpd_banner=portcullis demo
	CONF
    start vsftpd "$SERVER" vsftpd "$work/vsftpd.conf"

    start_typed shell-server "$SERVER" nc -l "$SERVER4" 22
    start_typed early-server "$SERVER" nc -l "$SERVER4" 7001
    start syslog-server "$SERVER" nc -u -l "$SERVER4" 514
    start half-open "$SERVER" python3 "$here/half_open.py" "$SERVER4" 7000

    local port
    for port in 80 53 21 22 7000 7001; do await listens t "$port"; done
    for port in 53 514; do await listens u "$port"; done
}

start_capture() {
    # Immediate mode: tcpdump leaves behind what is still in the kernel's buffer when it ends.
    start tcpdump "$ROUTER" tcpdump -i inside -s 0 -n -U -B 8192 -Z root --immediate-mode \
        --time-stamp-precision=micro -w "$work/demo.pcap"
    await grep -q 'listening on' "$work/tcpdump.log"
    # The neighbor caches start empty, so that ARP and neighbor discovery are in the capture.
    ip -n "$CLIENT" neigh flush dev lan
    ip -n "$ROUTER" neigh flush dev inside
}

stop_capture() {
    sleep 0.5
    kill -INT "${pid_of[tcpdump]}"
    wait "${pid_of[tcpdump]}" || true
    grep -q '^0 packets dropped by kernel' "$work/tcpdump.log" || die "packets lost: $(tail -n 3 "$work/tcpdump.log")"
}

# The conversations, in the order of README.md. The client's port tells a scene from the others: 20001, 20002, ...
before_the_capture() {
    start_typed early-client "$CLIENT" nc -p 20001 "$SERVER4" 7001
    type_into early-client 'said before the capture began'
    await grep -q 'said before' "$work/early-server.log"
}

play() {
    scene 'an SSH-like connection, kept until the end'
    start_typed shell-client "$CLIENT" nc -p 20002 "$SERVER4" 22
    type_into shell-server 'SSH-2.0-demo: not really'
    type_into shell-client 'SSH-2.0-client: nor here'
    type_into shell-client 'uptime'
    type_into shell-server 'up 1 day'
    await grep -q 'up 1 day' "$work/shell-client.log"

    scene 'ping'
    expect 0 ping -n -c 3 -i 0.2 "$SERVER4"
    expect 0 ping -n -6 -c 3 -i 0.2 "$SERVER6"
    expect 0 ping -n -c 2 -i 0.2 -s 4000 "$SERVER4"
    expect 0 ping -n -6 -c 2 -i 0.2 -s 4000 "$SERVER6"
    expect 1 ping -n -c 1 -W 1 "$SILENT4"

    scene 'DNS'
    expect 0 dig -b "$CLIENT4#20010" +tries=1 "@$SERVER4" www.demo.test A
    expect 0 dig -b "$CLIENT4#20011" +tries=1 "@$SERVER4" www.demo.test AAAA
    expect 0 dig -b "$CLIENT6#20012" +tries=1 "@$SERVER6" www.demo.test AAAA
    expect 0 dig -b "$CLIENT4#20013" +tries=1 "@$SERVER4" missing.demo.test A
    expect 0 dig -b "$CLIENT4#20014" +tries=1 +tcp "@$SERVER4" www.demo.test A
    expect 0 dig -b "$CLIENT4#20015" +tries=1 +noedns "@$SERVER4" big.demo.test TXT
    expect 0 dig -b "$CLIENT4#20016" +tries=1 +bufsize=4096 "@$SERVER4" big.demo.test TXT

    scene 'UDP that nobody answers, or an ICMP error does'
    expect 9 dig -b "$CLIENT4#20020" +tries=1 +time=1 -p 5300 "@$SERVER4" www.demo.test A
    expect 9 dig -b "$CLIENT6#20021" +tries=1 +time=1 -p 5300 "@$SERVER6" www.demo.test A
    start_typed syslog-client "$CLIENT" nc -u -p 20022 "$SERVER4" 514
    type_into syslog-client '<13>demo: first line'
    type_into syslog-client '<13>demo: second line'
    await grep -q 'second line' "$work/syslog-server.log"
    expect 0 traceroute -n -q 1 -N 1 -w 1 -m 3 "$SERVER4"
    expect 0 traceroute -n -6 -q 1 -N 1 -w 1 -m 3 "$SERVER6"

    scene 'HTTP'
    curl_from 0 20030 "http://$SERVER4/" -o /dev/null "http://$SERVER4/medium.txt"
    curl_from 0 20031 "http://[$SERVER6]/" -o /dev/null "http://[$SERVER6]/medium.txt"
    curl_from 0 20032 "http://$SERVER4/large.txt"
    expect 0 python3 "$here/hang_up.py" "$CLIENT4" 20033 "$SERVER4" 80 /medium.txt
    curl_from 0 20034 -T "$work/www/medium.txt" "http://$NARROW4/upload/four.txt"
    curl_from 0 20035 -T "$work/note.txt" "http://[$NARROW6]/upload/six.txt"

    scene 'connections that do not come about'
    curl_from 7 20040 "http://$SERVER4:81/"
    curl_from 7 20041 "http://[$SERVER6]:81/"
    curl_from 7 20042 "http://$NOHOST4/"
    curl_from 28 20043 --connect-timeout 4 "http://$SILENT4/"
    curl_from 28 20044 --connect-timeout 2 "http://[$SILENT6]/"

    scene 'FTP, passive'
    curl_from 0 20050-20052 "ftp://$SERVER4/"
    curl_from 0 20053-20055 --disable-epsv "ftp://$SERVER4/report.txt"
    curl_from 0 20056-20058 "ftp://[$SERVER6]/report.txt"
    curl_from 0 20059-20061 --disable-epsv -T "$work/note.txt" "ftp://$SERVER4/incoming/passive.txt"
    scene 'FTP, active'
    curl_from 0 20062 --disable-eprt --ftp-port "$CLIENT4:20063" \
        "ftp://$SERVER4/" -o /dev/null "ftp://$SERVER4/report.txt"
    curl_from 0 20064 --disable-eprt --ftp-port "$CLIENT4:20065" \
        -T "$work/note.txt" "ftp://$SERVER4/incoming/active.txt"
    curl_from 0 20066 --ftp-port "[$CLIENT6]:20067" "ftp://[$SERVER6]/report.txt"
    scene 'FTP, a longer session'
    expect 0 env HOME="$work" lftp -c "set net:max-retries 1; set net:timeout 5; set ftp:ssl-allow no;
        set xfer:clobber yes; set cmd:fail-exit yes; open ftp://$SERVER4; cls -l; get report.txt -o $work/got.txt;
        put $work/note.txt -o incoming/lftp.txt; cls -l incoming; set ftp:passive-mode no; cls -l; bye"
    cmp "$work/got.txt" "$work/ftp/report.txt"

    scene 'a connection whose replies take another way'
    curl_from 0 20070 --interface "$DIRECT4" "http://$SERVER4/medium.txt"

    scene 'a server that forgot its connection'
    start_typed forgotten "$CLIENT" nc -p 20071 "$SERVER4" 7000
    type_into forgotten 'first line'
    await grep -q 'you said' "$work/forgotten.log"
    type_into forgotten 'second line'
    wait "${pid_of[half-open]}" || die "the half-open server failed: $(cat "$work/half-open.log")"
    sleep 0.3
    type_into forgotten 'is anybody there?'
    wait "${pid_of[forgotten]}" || true

    scene 'the connection from before the capture'
    type_into early-client 'said in mid-stream'
    type_into early-server 'heard in mid-stream'
    end early-client
    end early-server

    scene 'a last word on the SSH-like connection, which stays open'
    type_into shell-client 'uptime'
    type_into shell-server 'still up'
    await grep -q 'still up' "$work/shell-client.log"
}

matching() { tcpdump -n -r "$work/demo.pcap" "$1" 2>/dev/null | wc -l; }

# At least MINIMUM packets of the capture match the filter: `holds MINIMUM FILTER`
holds() {
    local found
    found=$(matching "$2") || die "tcpdump cannot read the capture with: $2"
    [ "$found" -ge "$1" ] || die "the capture has $found packets, not $1 or more, of: $2"
}

lacks() {
    local found
    found=$(matching "$1") || die "tcpdump cannot read the capture with: $1"
    [ "$found" -eq 0 ] || die "the capture has $found packets, and should have none, of: $1"
}

check() {
    local size
    size=$(stat -c %s "$work/demo.pcap")
    [ "$size" -le "$MAX_BYTES" ] || die "the capture has $size bytes, more than $MAX_BYTES"
    [ "$(od -An -tx1 -N4 "$work/demo.pcap" | tr -d ' ')" = d4c3b2a1 ] || die "not a microsecond little-endian pcap"

    local server4="host $SERVER4" server6="host $SERVER6"
    holds 2 'arp'
    holds 2 'icmp6 and (ip6[40] == 135 or ip6[40] == 136)'                  # neighbor discovery
    holds 6 'icmp and (icmp[0] == 8 or icmp[0] == 0)'                       # echo
    holds 6 'icmp6 and (ip6[40] == 128 or ip6[40] == 129)'
    holds 12 'ip[6:2] & 0x3fff != 0'                                        # fragments
    holds 12 'ip6[6] == 44'
    holds 2 'udp port 53 and port 20010'
    holds 6 'tcp port 53 and port 20014'                                    # DNS over TCP
    holds 6 'tcp port 53 and not port 20014'                                # ... after a truncated answer
    holds 2 'icmp and icmp[0] == 3 and icmp[1] == 3'                        # port unreachable
    holds 2 'icmp6 and ip6[40] == 1 and ip6[41] == 4'
    holds 1 'icmp and icmp[0] == 11'                                        # time exceeded
    holds 1 'icmp6 and ip6[40] == 3'
    holds 1 'icmp and icmp[0] == 3 and icmp[1] == 4'                        # fragmentation needed
    holds 1 'icmp6 and ip6[40] == 2'
    holds 1 'icmp and icmp[0] == 3 and icmp[1] == 1'                        # host unreachable
    holds 60 "tcp port 80 and port 20032 and $server4"                      # the download
    holds 10 "tcp port 80 and port 20031 and $server6"
    holds 1 'tcp port 20033 and tcp[13] & 4 != 0'                           # the client gives up: RST
    holds 1 'tcp port 20040 and tcp[13] & 4 != 0'                           # refused: RST
    holds 1 'ip6 and tcp port 20041 and ip6[53] & 4 != 0'
    holds 3 "tcp and dst host $SILENT4 and tcp[13] == 2"                    # SYN, again and again
    holds 2 "tcp and dst host $SILENT6"
    holds 10 "tcp port 21 and $server4"
    holds 10 "tcp port 21 and $server6"
    holds 4 'tcp src port 20 and tcp[13] == 2'                              # active: the server calls
    holds 1 'ip6 and tcp src port 20 and ip6[53] == 2'
    holds 4 "dst host $SERVER4 and tcp dst portrange 42000-42999 and tcp[13] == 2"
    holds 4 "src host $DIRECT4 and tcp port 20070"                          # one direction only
    holds 1 'tcp port 20071 and tcp[13] & 4 != 0'                           # the server forgot
    holds 4 'tcp port 20001'                                                # mid-stream
    holds 3 'tcp src port 22 and tcp[13] & 8 != 0'                          # the idle connection, its last word too
    # What must not be there: a reply on the other way, the beginning of the early connection, an end of the idle one.
    lacks "dst host $DIRECT4"
    lacks 'tcp port 20001 and tcp[13] & 2 != 0'
    lacks 'tcp port 20002 and tcp[13] & 5 != 0'
}

main() {
    [ $# -eq 1 ] || die "usage: record.sh OUTPUT.pcap"
    local output=$1
    [ -d "$(dirname "$output")" ] || die "no such directory: $(dirname "$output")"
    require
    trap cleanup EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM HUP
    work=$(mktemp -d "${TMPDIR:-/tmp}/pc-demo.XXXXXXXX")
    chmod 755 "$work"

    say "namespaces $CLIENT, $ROUTER, $SERVER"
    build_network
    start_servers
    before_the_capture
    start_capture
    play
    stop_capture
    check
    # A copy beside OUTPUT and a rename: OUTPUT is whole or as it was.
    install -m 644 "$work/demo.pcap" "$output.new"
    mv -f "$output.new" "$output"
    say "$output: $(tcpdump -n -r "$output" 2>/dev/null | wc -l) packets, $(stat -c %s "$output") bytes"
}

main "$@"
