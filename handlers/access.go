package handlers

import (
	"net"
	"net/http"
)

// right is what a request may need in a room.
type right int

const (
	maySubscribe  right = iota // to see events, and what is known of the room
	mayPublish                 //
	mayAdminister              // to list and to purge
)

// allow says who asks, or that they may not. Without tokens the gateway is
// open: everybody is nobody in particular, may subscribe and publish, and may
// administer from the same machine.
func (g *Gateway) allow(r *http.Request, need right, rooms ...string) (subject string, err error) {
	if need == mayAdminister && !fromLoopback(r) {
		return "", errForbidden.with("Without tokens this is allowed from the same machine only.")
	}
	return "", nil
}

// fromLoopback says that the peer is on this machine, and is not a proxy that
// speaks for somebody else.
func fromLoopback(r *http.Request) bool {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		return false
	}
	ip := net.ParseIP(host)
	forwarded := r.Header.Get("X-Forwarded-For") != "" || r.Header.Get("Forwarded") != ""
	return ip != nil && ip.IsLoopback() && !forwarded
}
