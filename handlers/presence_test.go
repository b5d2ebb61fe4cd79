package handlers

import (
	"encoding/json"
	"net/http"
	"net/url"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"sluice/fanout"
	"sluice/handlers/auth"
)

// membersNow asks who is in a room.
func (g *testGateway) membersNow(room string) []string {
	g.t.Helper()
	a := g.do("GET", "/rooms/"+room+"/members", "")
	var body struct {
		Room    string
		Count   int
		Members []struct {
			User    string
			Streams int
			Since   time.Time
		}
	}
	if err := json.Unmarshal([]byte(a.body), &body); err != nil || a.StatusCode != http.StatusOK {
		g.t.Fatalf("GET members: %s: %s (%v)", a.Status, a.body, err)
	}
	if body.Room != room || body.Count != len(body.Members) {
		g.t.Errorf("the members of %s are %s", room, a.body)
	}
	users := []string{}
	for _, m := range body.Members {
		users = append(users, m.User)
		if m.Streams < 0 || time.Since(m.Since) > time.Minute || m.Since.After(time.Now().Add(time.Second)) {
			g.t.Errorf("a member is %+v", m)
		}
	}
	return users
}

func TestMembersAreListedAndToldOfEachOther(t *testing.T) {
	g := newTestGateway(t, Config{})
	if got := g.membersNow("lobby"); len(got) != 0 {
		t.Errorf("there are %q before anybody came", got)
	}
	ann := g.listen("/rooms/lobby/events?presence=ann")
	ann.opened()
	both := g.listen("/events?room=lobby&room=kitchen&presence=" + url.QueryEscape("Bob Ø. \"x\""))
	left := both.opened()
	ann.want("event: sluice.join\ndata: {\"room\":\"lobby\",\"user\":\"Bob Ø. \\\"x\\\"\",\"count\":2}\n")
	lines := g.listen("/rooms/kitchen/events?presence=cyd", "Accept", "application/x-ndjson")
	both.want("event: sluice.join\ndata: {\"room\":\"kitchen\",\"user\":\"cyd\",\"count\":2}\n")
	// Both may have come in the same millisecond, so that either may be first.
	if got, want := slices.Sorted(slices.Values(g.membersNow("lobby"))), []string{`Bob Ø. "x"`, "ann"}; !slices.Equal(got, want) {
		t.Errorf("in the lobby are %q, want %q", got, want)
	}
	if a := g.do("POST", "/streams/"+left, ""); a.StatusCode != http.StatusNoContent {
		t.Errorf("leaving: %s", a.Status)
	}
	ann.want("event: sluice.leave\ndata: {\"room\":\"lobby\",\"user\":\"Bob Ø. \\\"x\\\"\",\"count\":1}\n")
	if _, err := lines.in.ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	line, err := lines.in.ReadString('\n')
	if err != nil || !strings.HasPrefix(line, `{"room":"kitchen","type":"sluice.leave","at":"`) || !strings.HasSuffix(line, `,"data":{"room":"kitchen","user":"Bob Ø. \"x\"","count":1}}`+"\n") {
		t.Errorf("in NDJSON a leave is %q (%v)", line, err)
	}
	if got := g.membersNow("kitchen"); !slices.Equal(got, []string{"cyd"}) {
		t.Errorf("in the kitchen are %q", got)
	}
}

func TestWhoPollsIsPresent(t *testing.T) {
	g := newTestGateway(t, Config{})
	ann := g.listen("/rooms/lobby/events?presence=ann")
	ann.opened()
	page := make(chan map[string]any, 1)
	go func() { page <- g.page("/rooms/lobby/events?wait=5s&presence=bob") }()
	ann.want("event: sluice.join\ndata: {\"room\":\"lobby\",\"user\":\"bob\",\"count\":2}\n")
	g.publish("lobby", "hello")
	if got := (<-page)["events"].([]any); len(got) != 1 {
		t.Errorf("the poll brought %v", got)
	}
	if got, want := g.membersNow("lobby"), []string{"ann", "bob"}; !slices.Equal(got, want) {
		t.Errorf("between two polls there are %q, want %q", got, want)
	}
}

func TestNamesThatNobodyCanHave(t *testing.T) {
	g := newTestGateway(t, Config{})
	for name, bad := range map[string]string{
		"none": "", "too long": strings.Repeat("x", 65), "a line break": "a\nb", "a control": "a\x7f", "C1": "a\u0085b", "not UTF-8": "a\xff", "NUL": "\x00",
	} {
		a := g.do("GET", "/rooms/lobby/events?presence="+url.QueryEscape(bad), "")
		if a.StatusCode != http.StatusBadRequest || a.json(t)["type"] != "urn:sluice:bad-query" {
			t.Errorf("%s: %s: %s", name, a.Status, a.body)
		}
	}
	for _, good := range []string{strings.Repeat("x", 64), "李小龙", "<script>", " ", "-", "a:b|c"} {
		g.listen("/rooms/lobby/events?presence=" + url.QueryEscape(good)).opened()
		if got := g.membersNow("lobby"); !slices.Contains(got, good) {
			t.Errorf("%q is not among %q", good, got)
		}
	}
}

func TestWhoIsPresentWhere(t *testing.T) {
	on, off := true, false
	g := newTestGateway(t, Config{Namespaces: map[string]Namespace{"on": {Presence: &on}, "off": {Presence: &off}}})
	rooms := []string{"on:1", "off:1", "other:1", "off", "on"}
	for name, tt := range map[string]struct {
		who   identity
		query string
		want  *fanout.Member
	}{
		"open, asked":           {identity{open: true}, "presence=ann", &fanout.Member{User: "ann", Rooms: []string{"on:1", "other:1", "off", "on"}}},
		"open, not asked":       {identity{open: true}, "", nil},
		"token":                 {identity{subject: "ann", info: []byte(`{"n":1}`)}, "", &fanout.Member{User: "ann", Info: []byte(`{"n":1}`), Rooms: []string{"on:1"}}},
		"token, another's name": {identity{subject: "ann"}, "presence=bob", &fanout.Member{User: "ann", Rooms: []string{"on:1"}}},
		"no token":              {identity{}, "presence=bob", nil},
	} {
		query, _ := url.ParseQuery(tt.query)
		got, err := g.g.memberOf(query, tt.who, rooms)
		if err != nil || !reflect.DeepEqual(got, tt.want) {
			t.Errorf("%s: %+v (%v), want %+v", name, got, err, tt.want)
		}
	}
	g.listen("/rooms/off:1/events?presence=ann").opened()
	if got := g.membersNow("off:1"); len(got) != 0 {
		t.Errorf("where presence is off there are %q", got)
	}
}

func TestCrowdIsListedByItsCount(t *testing.T) {
	for _, tt := range []struct {
		roster fanout.Roster
		want   string
	}{
		{fanout.Roster{Count: 5000}, `{"room":"r","count":5000}`},
		{fanout.Roster{Members: []fanout.Present{}}, `{"room":"r","count":0,"members":[]}`},
		{fanout.Roster{Count: 1, Members: []fanout.Present{{User: "a", Info: []byte(`{"x":1}`), Streams: 2, Since: 1}}},
			`{"room":"r","count":1,"members":[{"user":"a","info":{"x":1},"streams":2,"since":"1970-01-01T00:00:00.001Z"}]}`},
	} {
		if got, err := json.Marshal(membersOf("r", tt.roster)); err != nil || string(got) != tt.want {
			t.Errorf("got %s (%v), want %s", got, err, tt.want)
		}
	}
}

func TestEphemeralNamespaceKeepsNothing(t *testing.T) {
	g := newTestGateway(t, Config{Namespaces: map[string]Namespace{"live": {Ephemeral: true}}})
	live := g.listen("/rooms/live:1/events")
	live.opened()
	a := g.do("POST", "/rooms/live:1/events", "hello", "Idempotency-Key", "k1")
	if _, hasID := a.json(t)["id"]; a.StatusCode != http.StatusAccepted || hasID {
		t.Errorf("publishing what is not kept: %s: %s", a.Status, a.body)
	}
	live.want("data: hello\n")
	a = g.do("POST", "/events?room=live:1&room=kept:1", "to both")
	var both struct{ Events []receipt }
	if err := json.Unmarshal([]byte(a.body), &both); err != nil || a.StatusCode != http.StatusCreated || len(both.Events) != 2 {
		t.Fatalf("publishing to both: %s: %s", a.Status, a.body)
	}
	if both.Events[0].ID != "" || both.Events[1].ID == "" {
		t.Errorf("the receipts are %+v", both.Events)
	}
	live.want("data: to both\n")
	for room, want := range map[string]int{"live:1": 0, "kept:1": 1} {
		if got := g.page("/rooms/" + room + "/events")["events"].([]any); len(got) != want {
			t.Errorf("%s keeps %d events, want %d", room, len(got), want)
		}
	}
}

// With tokens a member is the token's subject, whatever the client says, on
// any node; and whoever is revoked leaves at once.
func TestMembersOfAGatewayWithTokensAreSubjects(t *testing.T) {
	t.Parallel() // it mostly waits
	eachLog(t, func(t *testing.T, nodes int, open func() fanout.Log) {
		on := true
		cfg := withTokens(t)
		cfg.Namespaces = map[string]Namespace{"a": {Presence: &on}}
		n, other := startNodes(t, nodes, open, cfg)
		ann := n.stream("/rooms/a:1/events", bearer(token(t, auth.Grant{})))
		ann.opened()
		bob := bearer(token(t, auth.Grant{Subject: "bob", Info: []byte(`{"name":"Bob"}`), Subscribe: []string{"a*"}}))
		bobs := other.stream("/rooms/a:1/events?presence=ann", bob)
		bobs.opened()
		if b := ann.want("sluice.join"); b.data != `{"room":"a:1","user":"bob","info":{"name":"Bob"},"count":2}` {
			t.Errorf("ann is told %q", b.data)
		}
		list := other.ask("GET", "/rooms/a:1/members", "", bob)
		if list.status != 200 || !strings.Contains(list.body, `"user":"bob","info":{"name":"Bob"},"streams":1`) || !strings.Contains(list.body, `"count":2`) {
			t.Errorf("the members are %v", list)
		}
		if got := n.ask("GET", "/rooms/a:1/members", ""); got.status != 401 {
			t.Errorf("who shows no token is answered %v", got)
		}
		if got := n.ask("GET", "/rooms/b:1/members", "", bob); got.status != 403 {
			t.Errorf("who may not read the room is answered %v", got)
		}
		admin := bearer(token(t, auth.Grant{Subject: "root", Admin: true}))
		revoked := time.Now()
		if got := n.ask("POST", "/revocations", `{"subject":"bob"}`, admin, "Content-Type: application/json"); got.status >= 300 {
			t.Fatalf("revoking: %v", got)
		}
		if b := ann.want("sluice.leave"); b.data != `{"room":"a:1","user":"bob","info":{"name":"Bob"},"count":1}` {
			t.Errorf("ann is told %q", b.data)
		}
		if took := time.Since(revoked); took > 5*time.Second {
			t.Errorf("who was revoked left after %v", took)
		}
	})
}
