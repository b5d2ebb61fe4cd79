package handlers

import (
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/go-chi/chi/v5"

	"sluice/fanout"
)

// roomsOf gives the rooms that a request is about: the one in its path, or
// those in its query.
func (g *Gateway) roomsOf(r *http.Request, query url.Values) ([]string, error) {
	if room, ok, err := roomInPath(r); ok || err != nil {
		return []string{room}, err
	}
	var rooms []string
	for _, room := range query["room"] {
		if !fanout.ValidRoom(room) {
			return nil, errBadRoom
		}
		if !slices.Contains(rooms, room) {
			rooms = append(rooms, room)
		}
	}
	switch {
	case len(rooms) == 0:
		return nil, errBadQuery.with("Name a room: ?room=lobby.")
	case len(rooms) > g.cfg().MaxRooms:
		return nil, g.tooManyRooms()
	}
	return rooms, nil
}

func (g *Gateway) tooManyRooms() error {
	return errBadRooms.with("Name at most " + strconv.Itoa(g.cfg().MaxRooms) + " rooms.")
}

func roomInPath(r *http.Request) (room string, ok bool, err error) {
	room, ok = pathValue(r, "room")
	if room == "" && ok {
		if strings.HasPrefix(r.URL.Path, "/rooms/") {
			return "", false, errNotFound
		}
		return "", false, nil
	}
	if !ok || !fanout.ValidRoom(room) {
		return "", false, errBadRoom
	}
	return room, true, nil
}

// pathValue gives a part of the path, decoded once; chi matches the path as
// the client wrote it where that differs from how Go would.
func pathValue(r *http.Request, name string) (value string, ok bool) {
	value = chi.URLParam(r, name)
	if r.URL.RawPath == "" {
		return value, true
	}
	value, err := url.PathUnescape(value)
	return value, err == nil
}

// queryOf parses the query, all of it or nothing.
func queryOf(r *http.Request) (url.Values, error) {
	if r.URL.RawQuery == "" {
		return nil, nil
	}
	values, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return nil, errBadQuery.with("Its escapes cannot be read.")
	}
	return values, nil
}

// startsOf says where a GET on events begins in each room. ok is false for a
// cursor that cannot be read, which streams answer with a gap, and pages
// refuse. given says whether the client named a cursor at all.
//
// The header wins over the query: a browser sends it when it comes back by
// itself, and is further on than when it began with the cursor in the URL.
func startsOf(r *http.Request, query url.Values, rooms []string) (starts []fanout.Start, given, ok bool, err error) {
	cursors := slices.Concat(nonEmpty(r.Header.Values("Last-Event-ID")))
	if len(cursors) == 0 {
		cursors = nonEmpty(query["lastEventId"])
	}
	if len(cursors) == 0 {
		cursors = nonEmpty(query["after"])
	}
	if len(cursors) > 0 {
		cursor := cursors[0]
		if slices.ContainsFunc(cursors, func(c string) bool { return c != cursor }) {
			cursor = "?" // two that differ are none
		}
		starts, ok = fanout.ParseCursor(cursor, rooms)
		return starts, true, ok, nil
	}
	starts = make([]fanout.Start, len(rooms))
	if !query.Has("last") {
		return starts, false, true, nil
	}
	last, err := number(query, "last", 0, 0, 1<<30)
	for i := range starts {
		starts[i] = fanout.Last(last)
	}
	return starts, true, true, err
}

func nonEmpty(values []string) []string {
	return slices.DeleteFunc(slices.Clone(values), func(s string) bool { return s == "" })
}

// number reads a whole number from the query; beyond most it is most.
func number(query url.Values, name string, unset, least, most int) (int, error) {
	text := query.Get(name)
	if !query.Has(name) {
		return unset, nil
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < least {
		return 0, errBadQuery.with(name + " is a whole number, at least " + strconv.Itoa(least) + ".")
	}
	return min(n, most), nil
}

// duration reads a time like 25s, or a number of seconds; beyond most it is most.
func duration(query url.Values, name string, most time.Duration) (time.Duration, error) {
	text := query.Get(name)
	if seconds, err := strconv.ParseFloat(text, 64); err == nil && seconds >= 0 {
		return time.Duration(min(seconds, most.Seconds()) * float64(time.Second)), nil
	}
	d, err := time.ParseDuration(text)
	if err != nil || d < 0 {
		return 0, errBadQuery.with(name + " is a time such as 25s.")
	}
	return min(d, most), nil
}

// flag reads a switch from the query: name=true.
func flag(query url.Values, name string) (bool, error) {
	text := query.Get(name)
	if !query.Has(name) {
		return false, nil
	}
	if text == "" {
		return true, nil
	}
	on, err := strconv.ParseBool(text)
	if err != nil {
		return false, errBadQuery.with(name + " is true or false.")
	}
	return on, nil
}

// typesOf reads types=a,b.
func typesOf(query url.Values) ([]string, error) {
	var types []string
	for _, list := range query["types"] {
		for name := range strings.SplitSeq(list, ",") {
			if name == "" {
				continue
			}
			if !fanout.ValidType(name) {
				return nil, errBadType
			}
			types = append(types, name)
		}
	}
	return types, nil
}

// form is what a GET on events is to be answered with.
type form int

const (
	formSSE form = iota
	formNDJSON
	formPage
)

// formOf goes by Accept, and without a type that says it by what the query asks.
func formOf(r *http.Request, query url.Values) form {
	accept := strings.ToLower(strings.Join(r.Header.Values("Accept"), ","))
	switch {
	case strings.Contains(accept, "text/event-stream"):
		return formSSE
	case strings.Contains(accept, "application/x-ndjson"):
		return formNDJSON
	case strings.Contains(accept, "application/json"), query.Has("limit"), query.Has("wait"), query.Has("before"):
		return formPage
	}
	return formSSE
}
