package handlers

import (
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/go-chi/chi/v5"
)

// Handler is everything that the public listener serves.
func (g *Gateway) Handler() http.Handler {
	r := chi.NewRouter()
	r.Use(g.counting, g.recovering, secureHeaders, g.crossOrigin, g.bodies)
	r.NotFound(g.answering(func(http.ResponseWriter, *http.Request) error { return errNotFound }))
	r.MethodNotAllowed(g.answering(wrongMethod))

	getAndHead(r, "/rooms/{room}/events", g.answering(g.getEvents))
	r.Post("/rooms/{room}/events", g.answering(g.traced(g.postEvents)))
	r.Delete("/rooms/{room}/events", g.answering(g.purge))
	getAndHead(r, "/rooms/{room}", g.answering(g.getRoom))
	getAndHead(r, "/rooms/{room}/members", g.answering(g.getMembers))
	getAndHead(r, "/rooms", g.answering(g.listRooms))
	getAndHead(r, "/events", g.answering(g.getEvents))
	r.Post("/events", g.answering(g.traced(g.postEvents)))
	r.Delete("/streams/{stream}", g.answering(g.endStream))
	r.Post("/streams/{stream}", g.answering(g.endStream)) // for navigator.sendBeacon, which knows no other method
	r.Post("/streams/{stream}/token", g.answering(g.renewStream))
	r.Post("/tickets", g.answering(g.sellTicket))
	r.Post("/revocations", g.answering(g.revoke))

	getAndHead(r, "/healthz", g.healthy)
	getAndHead(r, "/readyz", g.answering(g.ready))
	for _, path := range g.cfg().PagePaths {
		getAndHead(r, path, g.cfg().Pages.ServeHTTP)
	}
	return r
}

// getAndHead routes GET, and HEAD with it, by which monitors and `curl -I` ask.
func getAndHead(r chi.Router, path string, h http.HandlerFunc) {
	r.Get(path, h)
	r.Head(path, h)
}

// traced has a publication make a span, where they do.
func (g *Gateway) traced(h handler) handler {
	if g.cfg().Tracer == nil {
		return h
	}
	return func(w http.ResponseWriter, r *http.Request) (err error) {
		r, span := g.cfg().Tracer.Request(r, routeOf(r))
		defer func() {
			if err == nil {
				span.Ended(0, "")
				return
			}
			p := problemOf(err)
			span.Ended(p.status, p.kind)
		}()
		return h(w, r)
	}
}

// wrongMethod says which methods there are instead (RFC 9110, 15.5.6).
func wrongMethod(w http.ResponseWriter, r *http.Request) error {
	routes := chi.RouteContext(r.Context()).Routes
	var allowed []string
	for _, method := range []string{http.MethodGet, http.MethodHead, http.MethodPost, http.MethodDelete} {
		if routes.Match(chi.NewRouteContext(), method, r.URL.Path) {
			allowed = append(allowed, method)
		}
	}
	w.Header().Set("Allow", strings.Join(allowed, ", ")) // one line, since some clients read only the first
	return errMethod
}

// Values of headers that every answer has, or every answer to a publication.
// They are shared, and not changed: Header.Set replaces them, Header.Add copies
// a slice that is full.
var (
	noSniff     = []string{"nosniff"}
	noReferrer  = []string{"no-referrer"}
	varyOrigin  = []string{"Origin"}
	contentJSON = []string{"application/json"}
	noStore     = []string{"no-store"}
)

// secureHeaders are right for every answer; the page adds its own.
func secureHeaders(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		header := w.Header()
		header["X-Content-Type-Options"], header["Referrer-Policy"] = noSniff, noReferrer
		next.ServeHTTP(w, r)
	})
}

// crossOrigin keeps pages of other origins from publishing, which browsers let
// them do without asking, and lets those use the gateway that are configured.
func (g *Gateway) crossOrigin(next http.Handler) http.Handler {
	protection := http.NewCrossOriginProtection()
	for _, origin := range g.cfg().Origins {
		if err := protection.AddTrustedOrigin(origin); err != nil {
			g.cfg().Logger.Warn("not an origin, so it is not trusted", "origin", origin, "error", err)
		}
	}
	protection.SetDenyHandler(g.answering(func(http.ResponseWriter, *http.Request) error {
		return errForbidden.with("A page of another origin may do this only if --cors-origin names its origin.")
	}))
	protected := protection.Handler(next)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		header := w.Header()
		header["Vary"] = varyOrigin
		origin := r.Header.Get("Origin")
		if origin == "" || !slices.Contains(g.cfg().Origins, origin) {
			protected.ServeHTTP(w, r)
			return
		}
		header.Set("Access-Control-Allow-Origin", origin)
		header.Set("Access-Control-Allow-Credentials", "true")
		header.Set("Access-Control-Expose-Headers", "Idempotency-Replayed, Retry-After")
		if r.Method == http.MethodOptions && r.Header.Get("Access-Control-Request-Method") != "" {
			header.Set("Access-Control-Allow-Methods", "GET, POST, DELETE")
			header.Set("Access-Control-Allow-Headers", "authorization, content-type, event-type, idempotency-key, last-event-id")
			header.Set("Access-Control-Max-Age", "600")
			w.WriteHeader(http.StatusNoContent)
			return
		}
		protected.ServeHTTP(w, r)
	})
}

// bodies refuses a body where none belongs: what a proxy and we might
// understand differently is not worth reading. Where one belongs, it has its
// time from here on, since what a handler leaves of it is read for the sake of
// the next request.
func (g *Gateway) bodies(next http.Handler) http.Handler {
	refuse := g.answering(func(http.ResponseWriter, *http.Request) error { return errUnwantedBody })
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body := r.ContentLength != 0 || len(r.TransferEncoding) > 0
		if body {
			_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(g.cfg().BodyTimeout)) // where that can be set
		}
		if len(r.TransferEncoding) > 0 && r.ProtoMajor == 1 {
			// It may have come with a Content-Length, too, which net/http drops. What
			// is behind such a body is not to be taken for another request.
			w.Header().Set("Connection", "close")
		}
		if body && r.Method != http.MethodPost {
			refuse(w, r)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// healthy answers as long as the process can.
func (g *Gateway) healthy(w http.ResponseWriter, _ *http.Request) {
	writeJSON(w, "application/json", http.StatusOK, map[string]string{"status": "alive"})
}

// ready is for balancers: whether to send anybody here.
func (g *Gateway) ready(w http.ResponseWriter, _ *http.Request) error {
	if g.draining.Load() {
		return errDraining
	}
	if !g.hub.DownSince().IsZero() {
		return errUnavailable
	}
	if g.cfg().Verifier != nil && g.cfg().Verifier.Ready() != nil {
		return errNoKeys
	}
	writeJSON(w, "application/json", http.StatusOK, map[string]string{"status": "ready"})
	return nil
}
