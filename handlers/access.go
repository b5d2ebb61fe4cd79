package handlers

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"strings"

	"sluice/fanout"
	"sluice/handlers/auth"
	"sluice/handlers/limit"
)

// right is what a request may need in a room.
type right int

const (
	maySubscribe  right = iota // to see events, and what is known of the room
	mayPublish                 //
	mayAdminister              // to list, to purge and to revoke
)

// visitor is who asks, as far as a request proves it.
type visitor struct {
	subject string      // "" for nobody in particular
	address string      // what the request counts as where it has no subject
	claims  auth.Claims // of the token, or of the ticket
	open    bool        // the gateway is: everybody may everything, but for
	local   bool        // administering, which takes somebody on this machine
	ticket  *ticket     // what was shown instead of a token
}

// key is whom limits count.
func (v *visitor) key() string {
	if v.subject != "" {
		return "s:" + v.subject
	}
	return "a:" + v.address
}

// lease is how long a stream of the visitor's may last.
func (v *visitor) lease() fanout.Lease {
	return fanout.Lease{Owner: v.subject, Since: v.claims.IssuedAt, Until: v.claims.Expires}
}

// identity is what the visitor proves of themselves to other members.
func (v *visitor) identity() identity {
	return identity{subject: v.subject, info: v.claims.Info, open: v.open}
}

// identify says who asks. A request without a token is nobody's, and may be
// allowed something all the same; one with a token that is not valid is refused
// whatever it asks for, so that nobody loses rights without noticing.
func (g *Gateway) identify(r *http.Request) (*visitor, error) {
	v := &visitor{address: g.addressOf(r)}
	if g.cfg().Verifier == nil {
		v.open, v.local = true, fromLoopback(r)
		if v.local && !localHost(r.Host) && unsafe(r) {
			// A page whose name was made to lead to this machine: for the
			// browser it is of the same origin as the gateway.
			return nil, errForbidden.with("Use the gateway by its address, or as localhost; or give it tokens.")
		}
		return v, nil
	}
	token, ok := auth.Credential(r)
	if !ok {
		return v, nil
	}
	claims, err := g.verify(r.Context(), token)
	if err != nil {
		return nil, err
	}
	if auth.FromCookie(r) && unsafe(r) && r.Header.Get("Origin") == "" && r.Header.Get("Sec-Fetch-Site") == "" {
		// Browsers, whose cookies go along unasked, say at least one of them.
		return nil, errForbidden.with("With a cookie, say where the request comes from; without a browser, use Authorization.")
	}
	v.subject, v.claims = claims.Subject, claims
	return v, nil
}

// addressOf is what a request's address counts as.
func (g *Gateway) addressOf(r *http.Request) string {
	return limit.Key(limit.ClientIP(r, g.cfg().TrustedProxies))
}

// verify says what a token grants, if it counts.
func (g *Gateway) verify(ctx context.Context, token string) (auth.Claims, error) {
	claims, err := g.cfg().Verifier.Verify(ctx, token)
	switch {
	case errors.Is(err, auth.ErrUnavailable):
		return claims, errNoKeys
	case err != nil:
		g.cfg().Logger.LogAttrs(ctx, slog.LevelDebug, "token refused", slog.String("reason", auth.Reason(err)))
		return claims, errUnauthorized
	}
	return claims, g.revoked.check(ctx, claims)
}

// may says whether the visitor has the right in all of the rooms. What is
// refused looks the same whether there is such a room or not. The nodes' reports
// are for administrators, and for tokens whose patterns begin with an @, as no
// other does that matches their room: a screen on a wall need not administer.
func (g *Gateway) may(v *visitor, need right, rooms ...string) error {
	if need == mayAdminister {
		switch {
		case v.open && !v.local:
			return errForbidden.with("Without tokens this is allowed from the same machine only.")
		case v.open || v.claims.Admin:
			return nil
		}
		return v.refused()
	}
	own := v.claims.Subscribe
	if need == mayPublish {
		own = v.claims.Publish
	}
	for _, room := range rooms {
		if room == fanout.StatsRoom && (v.open || v.claims.Admin) {
			if err := g.may(v, mayAdminister); err != nil {
				return err
			}
			continue
		}
		if !v.open && !own.Match(room) && !g.public(room, need) {
			return v.refused()
		}
	}
	return nil
}

func (v *visitor) refused() error {
	if v.subject == "" {
		return errUnauthorized
	}
	return errForbidden
}

// admit says who asks, if they have the right in all of the rooms.
func (g *Gateway) admit(r *http.Request, need right, rooms ...string) (*visitor, error) {
	v, err := g.identify(r)
	if err != nil {
		return nil, err
	}
	return v, g.may(v, need, rooms...)
}

// allow is admit for those who want to know the subject only.
func (g *Gateway) allow(r *http.Request, need right, rooms ...string) (subject string, err error) {
	v, err := g.admit(r, need, rooms...)
	if err != nil {
		return "", err
	}
	return v.subject, nil
}

func unsafe(r *http.Request) bool {
	return r.Method != http.MethodGet && r.Method != http.MethodHead && r.Method != http.MethodOptions
}

// fromLoopback says that the peer is on this machine, and is not a proxy that
// speaks for somebody else.
func fromLoopback(r *http.Request) bool {
	peer, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil || !peer.Addr().Unmap().IsLoopback() {
		return false
	}
	for _, name := range []string{"X-Forwarded-For", "Forwarded", "X-Real-Ip", "X-Forwarded-Host", "X-Forwarded-Proto", "Via"} {
		if _, ok := r.Header[name]; ok {
			return false
		}
	}
	return true
}

// localHost says that a Host header names this machine as nobody else can.
func localHost(host string) bool {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	host = strings.TrimSuffix(strings.ToLower(host), ".")
	if host == "localhost" || strings.HasSuffix(host, ".localhost") {
		return true
	}
	ip, err := netip.ParseAddr(strings.Trim(host, "[]"))
	return err == nil && ip.Zone() == ""
}
