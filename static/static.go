// Package static is what a browser gets from a gateway: the client for pages
// of one's own, and two pages that need nothing but the public HTTP surface
// every other client uses, the demo chat and the dashboard.
//
//	GET /                  chat/index.html, the chat of the room in ?room=
//	GET /chat/main.js      how it works, with the modules beside it; no dependency, no build step
//	GET /chat/chat.css     how it looks
//	GET /icon.svg          the icon
//	GET /sluice.js         the browser client, an ES module (docs/client.md)
//	GET /sluice.global.js  the same as a classic script, which makes a global sluice
//	GET /sluice.d.ts       its types
//	GET /dashboard         dashboard.html, all nodes live, for operators; with
//	                       dashboard.css, dashboard.js, and its parts
//	                       dashboard-nodes.js (what nodes report),
//	                       dashboard-charts.js and dashboard-room.js (one room)
//
// Both forms of the client come from one source when the gateway starts,
// without its comments (client.go). Pages of other origins may load it, where
// the gateway allows these to use it at all.
//
// The files are embedded, so a gateway is one binary, and they are served with
// the tightest policy they can live under: no inline script or style, nothing
// from elsewhere, no string ever turned into markup. What strangers say in a
// room therefore stays text, even should the page have a fault.
//
// Names carry no version: each file is kept by the browser and asked for again
// with its ETag, so that after a deploy a page and its script always match.
package static

import (
	"bytes"
	"crypto/sha256"
	"embed"
	"encoding/base64"
	"net/http"
	"strings"
	"time"
)

//go:embed chat icon.svg sluice.js sluice.d.ts
//go:embed dashboard.html dashboard.css dashboard.js dashboard-charts.js dashboard-nodes.js dashboard-room.js
var files embed.FS

// assets says what is served where.
var assets = []asset{
	{path: "/", file: "chat/index.html", contentType: "text/html; charset=utf-8"},
	{path: "/chat/chat.css", file: "chat/chat.css", contentType: "text/css; charset=utf-8"},
	{path: "/chat/compose.js", file: "chat/compose.js", contentType: "text/javascript; charset=utf-8"},
	{path: "/chat/conversation.js", file: "chat/conversation.js", contentType: "text/javascript; charset=utf-8"},
	{path: "/chat/dom.js", file: "chat/dom.js", contentType: "text/javascript; charset=utf-8"},
	{path: "/chat/event.js", file: "chat/event.js", contentType: "text/javascript; charset=utf-8"},
	{path: "/chat/history.js", file: "chat/history.js", contentType: "text/javascript; charset=utf-8"},
	{path: "/chat/main.js", file: "chat/main.js", contentType: "text/javascript; charset=utf-8"},
	{path: "/chat/message.js", file: "chat/message.js", contentType: "text/javascript; charset=utf-8"},
	{path: "/chat/people.js", file: "chat/people.js", contentType: "text/javascript; charset=utf-8"},
	{path: "/chat/place.js", file: "chat/place.js", contentType: "text/javascript; charset=utf-8"},
	{path: "/chat/side.js", file: "chat/side.js", contentType: "text/javascript; charset=utf-8"},
	{path: "/chat/status.js", file: "chat/status.js", contentType: "text/javascript; charset=utf-8"},
	{path: "/chat/unread.js", file: "chat/unread.js", contentType: "text/javascript; charset=utf-8"},
	{path: "/icon.svg", file: "icon.svg", contentType: "image/svg+xml"},
	{path: "/sluice.js", file: "sluice.js", contentType: "text/javascript; charset=utf-8", become: lean, shared: true},
	{path: "/sluice.global.js", file: "sluice.js", contentType: "text/javascript; charset=utf-8", become: classic, shared: true},
	{path: "/sluice.d.ts", file: "sluice.d.ts", contentType: "text/plain; charset=utf-8", shared: true},
	{path: "/dashboard", file: "dashboard.html", contentType: "text/html; charset=utf-8"},
	{path: "/dashboard.css", file: "dashboard.css", contentType: "text/css; charset=utf-8"},
	{path: "/dashboard.js", file: "dashboard.js", contentType: "text/javascript; charset=utf-8"},
	{path: "/dashboard-charts.js", file: "dashboard-charts.js", contentType: "text/javascript; charset=utf-8"},
	{path: "/dashboard-nodes.js", file: "dashboard-nodes.js", contentType: "text/javascript; charset=utf-8"},
	{path: "/dashboard-room.js", file: "dashboard-room.js", contentType: "text/javascript; charset=utf-8"},
}

// asset is a file and how it is served.
type asset struct {
	path, file, contentType string

	become func([]byte) []byte // what is made of the file; nothing if nil
	shared bool                // pages of other origins may load it
}

// policy is the Content-Security-Policy of every answer: script, style and
// icon from here, requests to here, and nothing else at all.
var policy = strings.Join([]string{
	"default-src 'none'",
	"script-src 'self'",
	"style-src 'self'",
	"img-src 'self'",
	"connect-src 'self'",
	"base-uri 'none'",
	"form-action 'self'",
	"frame-ancestors 'none'",
	"require-trusted-types-for 'script'",
	"trusted-types 'none'",
}, "; ")

// headers go with every answer, errors included.
var headers = map[string]string{
	"Cache-Control":                "no-cache",
	"Content-Security-Policy":      policy,
	"Cross-Origin-Opener-Policy":   "same-origin",
	"Cross-Origin-Resource-Policy": "same-origin",
	"Permissions-Policy":           "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
	"Referrer-Policy":              "no-referrer",
	"X-Content-Type-Options":       "nosniff",
	"X-Frame-Options":              "DENY",
}

// Paths lists the paths that Handler answers, for a router to mount. The list
// is the caller's own.
func Paths() []string {
	paths := make([]string, len(assets))
	for i, a := range assets {
		paths[i] = a.path
	}
	return paths
}

// Handler serves the files at Paths to GET and HEAD, with strong ETags and
// answers 304 to who has them. Other methods get 405, other paths 404. It
// holds no state but the files and may be shared.
func Handler() http.Handler {
	served := make(map[string]*file, len(assets))
	for _, a := range assets {
		served[a.path] = load(a)
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		for name, value := range headers {
			w.Header().Set(name, value)
		}
		f, ok := served[r.URL.Path]
		if ok && f.shared {
			w.Header().Set("Cross-Origin-Resource-Policy", "cross-origin")
		}
		if !ok {
			http.Error(w, "there is no such page here", http.StatusNotFound)
			return
		}
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			w.Header().Set("Allow", "GET, HEAD")
			http.Error(w, "this page can only be read", http.StatusMethodNotAllowed)
			return
		}
		f.ServeHTTP(w, r)
	})
}

// file is one embedded file, ready to be sent.
type file struct {
	asset
	body []byte
	etag string
}

func load(a asset) *file {
	body, err := files.ReadFile(a.file)
	if err != nil {
		panic("static: " + err.Error()) // assets names a file that was not embedded: a fault of the build
	}
	if a.become != nil {
		body = a.become(body)
	}
	sum := sha256.Sum256(body)
	return &file{asset: a, body: body, etag: `"` + base64.RawURLEncoding.EncodeToString(sum[:18]) + `"`}
}

func (f *file) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", f.contentType)
	w.Header().Set("ETag", f.etag)
	// No modification time: embedded files have none, and the ETag says it better.
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(f.body))
}
