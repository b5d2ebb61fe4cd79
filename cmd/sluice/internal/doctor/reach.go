package doctor

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"math"
	"net/http"
	"strings"
	"time"
)

// reachTime is how long the first answer may take; without one there is no
// examination, so this is not the place to be in a hurry.
const reachTime = 15 * time.Second

// reach asks for the gateway's health a few times, and says whether there is
// any point in going on.
func (x *examination) reach(ctx context.Context) bool {
	x.tell("reaching the gateway", 0, 0)
	health := call{method: http.MethodGet, path: []string{"healthz"}}
	first, err := x.do(ctx, any1or2, reachTime, health)
	if err != nil {
		x.unreachable(err)
		return false
	}
	best := first
	for range 5 {
		if a, err := x.do(ctx, any1or2, reachTime, health); err == nil && a.took < best.took {
			best = a
		}
	}
	x.rtt = best.took
	x.http2 = strings.HasPrefix(best.proto, "HTTP/2")
	x.product = identify(first.header)
	if first.status/100 == 3 {
		x.elsewhere(first)
		return false
	}
	x.found(Finding{
		Check: "reach", Level: OK,
		Seen:    fmt.Sprintf("status %d after %s, round trip %s%s; %s", first.status, ms(first.took), ms(x.rtt), x.through(), introduction(first.header)),
		Means:   "there is a way to something that answers",
		Figures: map[string]any{"status": first.status, "first_ms": millis(first.took), "round_trip_ms": millis(x.rtt), "headers": signs(first.header)},
	})
	x.certificate(best)
	x.version(best)
	x.clock(best)
	return true
}

func (x *examination) through() string {
	if x.report.Proxy == "" {
		return ""
	}
	return ", through " + x.report.Proxy
}

func (x *examination) unreachable(err error) {
	f := Finding{Check: "reach", Level: Bad, Seen: reason(err) + x.through(), Means: "no client can use this way"}
	var certificate *tls.CertificateVerificationError
	var authority x509.UnknownAuthorityError
	switch {
	case errors.As(err, &authority):
		f.Means = "clients that do not know the issuer refuse the connection; so it is with proxies that look into TLS"
		f.Do = "install the issuer's certificate (SSL_CERT_FILE for this program), or use --insecure to see the rest"
		if c := authority.Cert; c != nil {
			f.Seen += fmt.Sprintf("; issued by %q", c.Issuer.String())
		}
	case errors.As(err, &certificate):
		f.Means = "browsers refuse the connection"
		f.Do = "put a valid certificate in place, or use --insecure to see the rest"
	case strings.Contains(err.Error(), "Proxy Authentication Required"):
		f.Do = "give the proxy's user and password in its URL: --proxy http://user:password@host:port"
	case x.report.Proxy != "":
		f.Do = "check the proxy, HTTPS_PROXY, HTTP_PROXY and NO_PROXY; is the gateway to be reached from there?"
	default:
		f.Do = "check the address, and that a gateway listens there"
	}
	x.found(f)
}

func (x *examination) elsewhere(a *answer) {
	x.found(Finding{
		Check: "reach", Level: Bad,
		Seen:  fmt.Sprintf("status %d, to %s", a.status, a.header.Get("Location")),
		Means: "a POST does not follow every redirect, and each stream pays for it again",
		Do:    "give clients the address it leads to, and examine that",
	})
}

// certificate looks at TLS.
func (x *examination) certificate(a *answer) {
	if a.tls == nil || len(a.tls.PeerCertificates) == 0 {
		return
	}
	cert := a.tls.PeerCertificates[0]
	left := time.Until(cert.NotAfter)
	f := Finding{
		Check: "tls", Level: OK,
		Seen: fmt.Sprintf("%s, ALPN %q, certificate by %q good for %s",
			tls.VersionName(a.tls.Version), a.tls.NegotiatedProtocol, cert.Issuer.CommonName, remaining(left)),
		Means: "streams are safe from most of what looks into responses",
		Figures: map[string]any{
			"version": tls.VersionName(a.tls.Version), "alpn": a.tls.NegotiatedProtocol,
			"issuer": cert.Issuer.String(), "not_after": cert.NotAfter, "days": round(left.Hours() / 24),
		},
	}
	switch {
	case left < 0:
		f.Level, f.Means, f.Do = Bad, "browsers refuse the connection", "renew the certificate"
	case left < 14*24*time.Hour && left < cert.NotAfter.Sub(cert.NotBefore)/4: // short-lived ones are renewed late
		f.Level, f.Means, f.Do = Warn, "once it has expired no client can connect", "renew the certificate, and look why that did not happen by itself"
	case a.tls.Version < tls.VersionTLS12:
		f.Level, f.Means, f.Do = Bad, "browsers refuse this version", "allow TLS 1.2 and 1.3"
	}
	x.found(f)
}

// remaining is what is left of a certificate's life, as people say it.
func remaining(left time.Duration) string {
	switch {
	case left < 0:
		return "nothing: it has expired"
	case left < 48*time.Hour:
		return fmt.Sprintf("%d more hours", int(left.Hours()))
	}
	return fmt.Sprintf("%d more days", int(left.Hours()/24))
}

// version looks at which HTTP there is.
func (x *examination) version(a *answer) {
	f := Finding{
		Check: "http", Level: OK, Seen: a.proto,
		Means:   "all streams and requests of a browser share one connection",
		Figures: map[string]any{"version": a.proto},
	}
	if !x.http2 {
		f.Level = Warn
		f.Means = "a browser opens six connections to a host, for all its tabs: the seventh stream waits, and with six streams every POST does"
		f.Do = "use one stream for all rooms and tabs; or " + x.product.advice(onlyHTTP1)
	}
	if a.proto == "HTTP/1.0" {
		f.Means = "an old proxy, which may drop headers; besides, " + f.Means
	}
	x.found(f)
}

const (
	skewSeen = 10 * time.Second
	skewBad  = 5 * time.Minute
)

// clock compares the Date of an answer with ours.
func (x *examination) clock(a *answer) {
	date, err := http.ParseTime(a.header.Get("Date"))
	if err != nil {
		x.notDone("clock", "the answer has no Date")
		return
	}
	// Date has whole seconds, cut off, and was written half a round trip ago.
	skew := date.Add(500 * time.Millisecond).Sub(a.sent.Add(a.took / 2))
	off := skew.Abs()
	f := Finding{
		Check: "clock", Level: OK,
		Seen:    fmt.Sprintf("less than %d s apart", int(off.Seconds())+1),
		Means:   "tokens expire here when they expire there",
		Figures: map[string]any{"skew_s": round(skew.Seconds())},
	}
	if off > skewSeen {
		which := "behind"
		if skew > 0 {
			which = "ahead of"
		}
		f.Level = Warn
		f.Seen = fmt.Sprintf("their clock is %s %s ours", off.Round(time.Second), which)
		f.Means = "short tokens and tickets may be refused, or live too long"
		f.Do = "synchronise both clocks (NTP)"
	}
	if off > skewBad {
		f.Level = Bad
	}
	x.found(f)
}

// ms prints a duration as people read it.
func ms(d time.Duration) string {
	switch {
	case d < 10*time.Millisecond:
		return fmt.Sprintf("%.1f ms", float64(d)/float64(time.Millisecond))
	case d < time.Second:
		return fmt.Sprintf("%d ms", d.Milliseconds())
	}
	return fmt.Sprintf("%.1f s", d.Seconds())
}

func millis(d time.Duration) float64 { return round(float64(d) / float64(time.Millisecond)) }

func round(v float64) float64 { return math.Round(v*1000) / 1000 }
