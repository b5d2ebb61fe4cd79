package auth

import (
	"net/http"
	"strings"
)

// Cookie is the cookie that carries a token. Browsers take a name that begins so only
// from the host itself, over TLS, so that no sibling domain can set it.
const Cookie = "__Host-sluice"

// Credential returns the token that a request carries: in `Authorization: Bearer`, or
// else in the cookie; never in the URL, which ends up in logs. ok says that there was
// one. A request that brings several of a kind, or an empty one, gets an empty token,
// which Verify refuses: nobody should choose which of two counts. Another scheme is
// no credential of ours; proxies have their own.
func Credential(r *http.Request) (token string, ok bool) {
	if lines := r.Header.Values("Authorization"); len(lines) > 1 {
		return "", true
	} else if len(lines) == 1 {
		scheme, rest, _ := strings.Cut(lines[0], " ")
		if strings.EqualFold(scheme, "Bearer") {
			return strings.Trim(rest, " "), true
		}
	}
	for i, cookie := range r.CookiesNamed(Cookie) {
		if i > 0 {
			return "", true
		}
		token, ok = cookie.Value, true
	}
	return token, ok
}

// FromCookie says that what Credential returns is a cookie, which a browser
// sends along whoever made it send the request.
func FromCookie(r *http.Request) bool {
	for _, line := range r.Header.Values("Authorization") {
		if scheme, _, _ := strings.Cut(line, " "); strings.EqualFold(scheme, "Bearer") {
			return false
		}
	}
	return len(r.CookiesNamed(Cookie)) > 0
}
