package handlers

import (
	"context"
	"net/http"
	"strings"
	"sync"
	"time"
	"unicode"
	"unicode/utf8"

	"sluice/fanout"
	"sluice/handlers/auth"
)

const (
	revocationList = "revoked"
	// keepRevocations is how long one holds: longer than a token should live.
	keepRevocations = 400 * 24 * time.Hour
	// overlap is how far back the list is read again, for servers whose clocks
	// differ.
	overlap = time.Minute
)

// revocations is this node's copy of who was revoked, and when. The list is
// kept in the log's store; each node reads every second what is new, so that a
// request is checked without asking anybody.
type revocations struct {
	store fanout.Store
	ended func(subject string, until time.Time) // ends the subject's streams

	loading sync.Mutex // held by the one who reads the list

	mu     sync.RWMutex // guards the fields below
	loaded bool
	tried  time.Time            // to load it
	at     map[string]time.Time // by subject
	latest time.Time
}

func newRevocations(store fanout.Store, ended func(string, time.Time)) *revocations {
	return &revocations{store: store, ended: ended, at: map[string]time.Time{}}
}

// check says whether the claims of a token were revoked since it was issued.
// Before the list was read once nobody can tell: then it reads it.
func (rv *revocations) check(ctx context.Context, claims auth.Claims) error {
	if !rv.ready() {
		rv.load(ctx)
		if !rv.ready() {
			return errUnavailable
		}
	}
	rv.mu.RLock()
	defer rv.mu.RUnlock()
	at, ok := rv.at[claims.Subject]
	// A token says when it was issued in seconds. One that does not say it may
	// be as old as any.
	if ok && (claims.IssuedAt.IsZero() || claims.IssuedAt.Unix() <= at.Unix()) {
		return errRevoked
	}
	return nil
}

func (rv *revocations) ready() bool {
	rv.mu.RLock()
	defer rv.mu.RUnlock()
	return rv.loaded
}

// load reads the list for the first time, at most once a second.
func (rv *revocations) load(ctx context.Context) {
	rv.loading.Lock()
	defer rv.loading.Unlock()
	rv.mu.Lock()
	wait := rv.loaded || time.Since(rv.tried) < time.Second
	rv.mu.Unlock()
	if !wait {
		_ = rv.readLocked(ctx) // whoever asked finds out that it is not there
	}
}

// poll reads what is new.
func (rv *revocations) poll(ctx context.Context) error {
	rv.loading.Lock()
	defer rv.loading.Unlock()
	return rv.readLocked(ctx)
}

func (rv *revocations) readLocked(ctx context.Context) error {
	rv.mu.Lock()
	rv.tried = time.Now()
	since := rv.latest.Add(-overlap)
	rv.mu.Unlock()
	marks, err := rv.store.Marks(ctx, revocationList, since)
	if err != nil {
		return err
	}
	var fresh []fanout.Mark
	rv.mu.Lock()
	rv.loaded = true
	for _, m := range marks {
		if rv.at[m.Member].Before(m.At) {
			rv.at[m.Member] = m.At
			fresh = append(fresh, m)
		}
		if m.At.After(rv.latest) {
			rv.latest = m.At
		}
	}
	for subject, at := range rv.at {
		if len(marks) > 0 && time.Since(at) > keepRevocations {
			delete(rv.at, subject)
		}
	}
	rv.mu.Unlock()
	for _, m := range fresh {
		rv.ended(m.Member, endOfSecond(m.At))
	}
	return nil
}

// endOfSecond is the latest that a token which a revocation covers can claim
// to be issued.
func endOfSecond(at time.Time) time.Time { return at.Truncate(time.Second).Add(time.Second - 1) }

// revoke makes a subject's tokens, as many as there are until now, worthless.
func (g *Gateway) revoke(w http.ResponseWriter, r *http.Request) error {
	if g.cfg().Verifier == nil {
		return errNotFound.with("Without tokens there is nothing to revoke.")
	}
	if _, err := g.admit(r, mayAdminister); err != nil {
		return err
	}
	var body struct {
		Subject string `json:"subject"`
	}
	if err := g.readJSON(w, r, &body); err != nil {
		return err
	}
	if !validSubject(body.Subject) {
		return errBadBody.with(`Send {"subject":"…"}, the sub of the tokens.`)
	}
	at, err := g.hub.Log().Mark(r.Context(), revocationList, body.Subject, keepRevocations)
	if err != nil {
		return err
	}
	if err := g.revoked.poll(r.Context()); err != nil {
		return err
	}
	g.cfg().Logger.Info("subject revoked", "subject", body.Subject)
	writeJSON(w, "application/json", http.StatusOK, map[string]string{
		"subject": body.Subject, "until": string(fanout.AppendTime(nil, at.UnixMilli())),
	})
	return nil
}

// validSubject says whether a token could have this sub.
func validSubject(s string) bool {
	return s != "" && len(s) <= 256 && utf8.ValidString(s) && !strings.ContainsFunc(s, unicode.IsControl)
}
