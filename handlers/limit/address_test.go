package limit

import (
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
)

func trust(t testing.TB, list ...string) []netip.Prefix {
	t.Helper()
	trusted, err := ParseTrusted(list)
	if err != nil {
		t.Fatal(err)
	}
	return trusted
}

func from(peer string, forwarded ...string) *http.Request {
	r := httptest.NewRequest("GET", "/", nil)
	r.RemoteAddr = peer
	for _, f := range forwarded {
		r.Header.Add("X-Forwarded-For", f)
	}
	return r
}

func TestClientIP(t *testing.T) {
	trusted := trust(t, "127.0.0.0/8", "10.0.0.0/8", "::1", "fd00::/8", "::ffff:192.168.0.0/112")
	lines := func(s ...string) []string { return s }
	for name, tt := range map[string]struct {
		peer      string
		forwarded []string
		want      string
	}{
		"no proxy":                       {"203.0.113.9:5000", nil, "203.0.113.9"},
		"a stranger's header":            {"203.0.113.9:5000", lines("1.1.1.1"), "203.0.113.9"},
		"a stranger claims loopback":     {"203.0.113.9:5000", lines("1.1.1.1, 127.0.0.1"), "203.0.113.9"},
		"a trusted peer, no header":      {"127.0.0.1:1", nil, "127.0.0.1"},
		"one hop":                        {"127.0.0.1:1", lines("1.1.1.1"), "1.1.1.1"},
		"two proxies":                    {"127.0.0.1:1", lines("1.1.1.1, 10.2.3.4"), "1.1.1.1"},
		"S25":                            {"127.0.0.1:1", lines("1.1.1.1, 127.0.0.1"), "1.1.1.1"},
		"the client wrote the left":      {"127.0.0.1:1", lines("9.9.9.9, 8.8.8.8, 1.1.1.1"), "1.1.1.1"},
		"the client claims to be inside": {"127.0.0.1:1", lines("10.0.0.1, 1.1.1.1, 10.2.3.4"), "1.1.1.1"},
		"two headers":                    {"127.0.0.1:1", lines("9.9.9.9", "1.1.1.1, 10.2.3.4"), "1.1.1.1"},
		"two headers, right one inside":  {"127.0.0.1:1", lines("9.9.9.9, 1.1.1.1", "10.2.3.4"), "1.1.1.1"},
		"all are inside":                 {"127.0.0.1:1", lines("10.0.0.1, 10.0.0.2"), "10.0.0.1"},
		"50 strangers":                   {"127.0.0.1:1", lines(strings.Repeat("9.9.9.9, ", 49) + "1.1.1.1"), "1.1.1.1"},
		"50 hops inside":                 {"127.0.0.1:1", lines("1.1.1.1" + strings.Repeat(", 10.0.0.7", 50)), "10.0.0.7"},
		"50 headers inside":              {"127.0.0.1:1", append(lines("1.1.1.1"), strings.Split(strings.Repeat("10.0.0.7 ", 49)+"10.0.0.8", " ")...), "10.0.0.7"},
		"garbage":                        {"127.0.0.1:1", lines("<script>"), "127.0.0.1"},
		"garbage left of the client":     {"127.0.0.1:1", lines("\x1b[2J, 1.1.1.1"), "1.1.1.1"},
		"garbage from a proxy":           {"127.0.0.1:1", lines("1.1.1.1, unknown, 10.2.3.4"), "10.2.3.4"},
		"empty":                          {"127.0.0.1:1", lines(""), "127.0.0.1"},
		"an empty entry":                 {"127.0.0.1:1", lines("1.1.1.1, , 10.2.3.4"), "10.2.3.4"},
		"IPv4 that is none":              {"127.0.0.1:1", lines("1.1.1.256"), "127.0.0.1"},
		"octal":                          {"127.0.0.1:1", lines("010.1.1.1"), "127.0.0.1"},
		"a number":                       {"127.0.0.1:1", lines("2130706433"), "127.0.0.1"},
		"a port":                         {"127.0.0.1:1", lines("1.1.1.1:443"), "1.1.1.1"},
		"IPv6":                           {"[::1]:1", lines("2001:db8::1"), "2001:db8::1"},
		"IPv6 in brackets":               {"[::1]:1", lines("[2001:db8::1]"), "2001:db8::1"},
		"IPv6 and a port":                {"[::1]:1", lines("[2001:db8::1]:443"), "2001:db8::1"},
		"one bracket":                    {"[::1]:1", lines("[2001:db8::1"), "::1"},
		"a zone":                         {"[::1]:1", lines("fe80::1%eth0"), "fe80::1"},
		"a zone of the peer":             {"[fe80::1%eth0]:1", nil, "fe80::1"},
		"a mapped peer":                  {"[::ffff:127.0.0.1]:1", lines("1.1.1.1"), "1.1.1.1"},
		"a mapped client":                {"127.0.0.1:1", lines("::ffff:1.1.1.1"), "1.1.1.1"},
		"a mapped prefix":                {"192.168.1.1:1", lines("1.1.1.1"), "1.1.1.1"},
		"inside by IPv6":                 {"[fd00::5]:1", lines("2001:db8::1, fd00::7"), "2001:db8::1"},
	} {
		if got := ClientIP(from(tt.peer, tt.forwarded...), trusted); got.String() != tt.want {
			t.Errorf("%s: got %v, want %s", name, got, tt.want)
		}
	}
	if got := ClientIP(from("@", "1.1.1.1"), trusted); got.IsValid() {
		t.Errorf("a Unix socket: %v", got)
	}
	if got := ClientIP(from("127.0.0.1:1", "1.1.1.1"), nil); got.String() != "127.0.0.1" {
		t.Errorf("nobody is trusted: %v", got)
	}
}

func TestKeyIsTheCustomersShare(t *testing.T) {
	for addr, want := range map[string]string{
		"1.1.1.1":              "1.1.1.1",
		"::ffff:1.1.1.1":       "1.1.1.1",
		"2001:db8:1:2:3:4:5:6": "2001:db8:1:2::/64",
		"2001:db8:1:2:ffff::":  "2001:db8:1:2::/64",
		"2001:db8:1:3::":       "2001:db8:1:3::/64",
		"fe80::1%eth0":         "fe80::/64",
		"::1":                  "::/64",
	} {
		if got := Key(netip.MustParseAddr(addr)); got != want {
			t.Errorf("Key(%s) = %s, want %s", addr, got, want)
		}
	}
	if got := Key(netip.Addr{}); got != "unknown" {
		t.Errorf("no address: %s", got)
	}
}

func TestTrustedProxiesAreChecked(t *testing.T) {
	for _, s := range []string{"", "proxy", "10.0.0.0/33", "10.0.0.0/", "::ffff:0:0/90", "fe80::1%eth0", "10.0.0", "*"} {
		if got, err := ParseTrusted([]string{s}); err == nil {
			t.Errorf("%q became %v", s, got)
		}
	}
	if got := trust(t, "10.1.2.3/8", "10.1.2.3", "::1"); got[0].String() != "10.0.0.0/8" || got[1].String() != "10.1.2.3/32" || got[2].String() != "::1/128" {
		t.Errorf("got %v", got)
	}
}

// FuzzXFF: strangers write what they like, and the answer is still one that a trusted
// party vouches for.
func FuzzXFF(f *testing.F) {
	f.Add("1.1.1.1, 127.0.0.1", "9.9.9.9", true)
	f.Add(strings.Repeat("10.0.0.1,", 50), "", true)
	f.Add("fe80::1%eth0", "::ffff:10.0.0.1", true)
	f.Add("[2001:db8::1]:80, unknown", ",", false)
	f.Add("\x00", "1.1.1.1:99999", true)
	trusted := trust(f, "10.0.0.0/8", "fd00::/8")
	stranger := netip.MustParseAddr("203.0.113.9")
	f.Fuzz(func(t *testing.T, a, b string, two bool) {
		forwarded := []string{a + "," + b}
		if two {
			forwarded = []string{a, b}
		}
		if got := ClientIP(from("203.0.113.9:1", forwarded...), trusted); got != stranger {
			t.Errorf("a stranger with %q became %v", forwarded, got)
		}
		// Our proxies append who asked them; nothing left of that may matter.
		for _, right := range []string{"203.0.113.9", "203.0.113.9, 10.1.1.1", "203.0.113.9:80,[fd00::1]:80"} {
			r := from("10.0.0.1:1", append(forwarded[:len(forwarded)-1:len(forwarded)-1], forwarded[len(forwarded)-1]+", "+right)...)
			if got := ClientIP(r, trusted); got != stranger {
				t.Errorf("%q became %v", r.Header, got)
			}
			r = from("10.0.0.1:1", append(forwarded[:len(forwarded):len(forwarded)], right)...)
			if got := ClientIP(r, trusted); got != stranger {
				t.Errorf("%q became %v", r.Header, got)
			}
		}
		got := ClientIP(from("10.0.0.1:1", forwarded...), trusted)
		if !got.IsValid() || got.Zone() != "" || got.Is4In6() {
			t.Errorf("%q became %v", forwarded, got)
		}
		if key := Key(got); len(key) > 43 || strings.ContainsAny(key, "%\r\n ") {
			t.Errorf("%q is counted under %q", forwarded, key)
		}
	})
}
