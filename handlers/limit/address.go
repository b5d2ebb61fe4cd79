package limit

import (
	"fmt"
	"net/http"
	"net/netip"
	"strings"
)

// maxHops is how many entries of X-Forwarded-For are looked at, from the right. Nobody
// has so many proxies; somebody may send so many entries.
const maxHops = 16

// ParseTrusted reads the proxies whose X-Forwarded-For counts: prefixes in CIDR form, or
// single addresses.
func ParseTrusted(list []string) ([]netip.Prefix, error) {
	var trusted []netip.Prefix
	for _, s := range list {
		prefix, err := netip.ParsePrefix(s)
		if err != nil {
			addr, err := netip.ParseAddr(s)
			if err != nil || addr.Zone() != "" {
				return nil, fmt.Errorf("%q is neither an address nor a prefix like 10.0.0.0/8", s)
			}
			prefix = netip.PrefixFrom(addr, addr.BitLen())
		}
		// Peers are compared as IPv4 where they are, so the prefix must be, too.
		if addr := prefix.Addr(); addr.Is4In6() {
			if prefix.Bits() < 96 {
				return nil, fmt.Errorf("%q mixes IPv4 and IPv6: write the IPv4 prefix", s)
			}
			prefix = netip.PrefixFrom(addr.Unmap(), prefix.Bits()-96)
		}
		trusted = append(trusted, prefix.Masked())
	}
	return trusted, nil
}

// ClientIP returns the address that a request comes from: its peer's, unless that is a
// trusted proxy, and then the rightmost entry of X-Forwarded-For that is none. What
// stands left of that was written by strangers and counts for nothing. An entry that is
// no address ends the search: the proxy that passed it on is the last one known. The
// result has no zone, and is IPv4 where it can be; it is invalid where the peer has no
// address, on a Unix socket.
func ClientIP(r *http.Request, trusted []netip.Prefix) netip.Addr {
	peer, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return netip.Addr{}
	}
	client := plain(peer.Addr())
	lines := r.Header.Values("X-Forwarded-For")
	rest, line := "", len(lines)
	for hops := 0; hops < maxHops && contains(trusted, client); hops++ {
		if rest == "" {
			if line--; line < 0 {
				break
			}
			rest = lines[line]
		}
		at := strings.LastIndexByte(rest, ',')
		hop, ok := parseHop(rest[at+1:])
		if !ok {
			break
		}
		client, rest = hop, rest[:max(at, 0)]
	}
	return client
}

// parseHop reads an entry: an address, perhaps with a port, since some proxies add one.
func parseHop(s string) (netip.Addr, bool) {
	s = strings.Trim(s, " \t")
	if inner, ok := strings.CutPrefix(s, "["); ok && strings.HasSuffix(inner, "]") {
		s = inner[:len(inner)-1]
	}
	if addr, err := netip.ParseAddr(s); err == nil {
		return plain(addr), true
	}
	addr, err := netip.ParseAddrPort(s)
	return plain(addr.Addr()), err == nil
}

// plain leaves one form of an address that has several: a zone means something on one
// machine only, and IPv4 in IPv6 is IPv4.
func plain(addr netip.Addr) netip.Addr { return addr.Unmap().WithZone("") }

func contains(prefixes []netip.Prefix, addr netip.Addr) bool {
	for _, p := range prefixes {
		if p.Contains(addr) {
			return true
		}
	}
	return false
}

// Key is the name under which an address is counted: itself for IPv4, its /64 for IPv6,
// since that is what one customer gets. All requests without an address share a name.
func Key(addr netip.Addr) string {
	if !addr.IsValid() {
		return "unknown"
	}
	if addr = plain(addr); addr.Is4() {
		return addr.String()
	}
	prefix, err := addr.Prefix(64)
	if err != nil {
		return "unknown"
	}
	return prefix.String()
}
