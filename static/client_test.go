package static

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"sluice/handlers/auth"
	"sluice/static/browsertest"
)

func TestTheClientIsSmall(t *testing.T) {
	for _, path := range []string{"/sluice.js", "/sluice.global.js"} {
		_, body := ask(t, http.MethodGet, path)
		var small bytes.Buffer
		w, err := gzip.NewWriterLevel(&small, gzip.BestCompression)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(body)); err != nil {
			t.Fatal(err)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		if small.Len() > 6<<10 {
			t.Errorf("%s has %d bytes compressed, want at most %d", path, small.Len(), 6<<10)
		}
	}
}

func TestTheScriptIsServedWithoutWhatOnlyReadersNeed(t *testing.T) {
	const source = "// a comment\n/** of the interface */\nexport const f = (a, b) => {\n  if (!a) return typeof b; // why\n" +
		"  return `x = ${a} ` + 'it, is' + \"a : b\" - -1;\n};\n"
	const want = "export const f=(a,b)=>{if(!a)return typeof b;return`x = ${a} `+'it, is'+\"a : b\"- -1;};"
	if got := string(lean([]byte(source))); got != want {
		t.Errorf("lean makes\n%s, want\n%s", got, want)
	}
}

func TestTheClassicScriptIsNoModule(t *testing.T) {
	_, module := ask(t, http.MethodGet, "/sluice.js")
	_, classic := ask(t, http.MethodGet, "/sluice.global.js")
	for _, word := range []string{"export ", "import.meta", "import "} {
		if strings.Contains(classic, word) {
			t.Errorf("the classic script contains %q", word)
		}
	}
	for _, word := range []string{"export function subscribe", "export function publish", "export const pending", "export const members", "import.meta.url"} {
		if !strings.Contains(module, word) {
			t.Errorf("the module lacks %q", word)
		}
	}
}

func TestOtherOriginsMayLoadTheClient(t *testing.T) {
	for path, want := range map[string]string{"/sluice.js": "cross-origin", "/sluice.global.js": "cross-origin", "/chat/main.js": "same-origin"} {
		answer, _ := ask(t, http.MethodGet, path)
		if got := answer.Header.Get("Cross-Origin-Resource-Policy"); got != want {
			t.Errorf("%s: Cross-Origin-Resource-Policy is %q, want %q", path, got, want)
		}
	}
}

func numbers(from, to int) []string {
	var texts []string
	for i := from; i <= to; i++ {
		texts = append(texts, fmt.Sprint(i))
	}
	return texts
}

func TestTheClientShowsEachEventOnceAndInOrder(t *testing.T) {
	t.Parallel() // it mostly waits
	s := startSite(t, 1000)
	b := openTab(t, chromium.Profile(t), s, "/module?room=lobby,news")
	b.awaitWay("sse")
	s.publish("lobby", numbers(1, 20)...)
	b.awaitLog(numbers(1, 20)...)
	s.do(http.MethodPost, "/rooms/news/events?type=never.heard.of", "x")
	s.do(http.MethodPost, "/rooms/lobby/events?type=typing&ephemeral=true", "y")
	told := append(numbers(1, 20), "never.heard.of: x", "typing: y")
	b.awaitLog(told...)

	s.stop()
	b.Await("document.body.dataset.state !== 'live'")
	s.start()
	s.publish("lobby", numbers(21, 40)...)
	told = append(told, numbers(21, 40)...)
	b.awaitLog(told...)
	s.publish("news", "last")
	b.awaitLog(append(told, "last")...)
	b.Verify()
}

func TestTheClientTellsOfAGapBeforeWhatFollows(t *testing.T) {
	t.Parallel() // it mostly waits
	s := startSite(t, 5)
	b := openTab(t, chromium.Profile(t), s, "/module?room=lobby")
	b.awaitState("live")
	s.publish("lobby", "1")
	b.awaitLog("1")
	s.stop()
	b.Await("document.body.dataset.state !== 'live'")
	s.cut.Store(true)
	s.start()
	s.publish("lobby", numbers(2, 11)...)
	s.cut.Store(false)
	b.awaitLog(append([]string{"1", "gap: trimmed, 5 missed"}, numbers(7, 11)...)...)
	b.Verify()
}

func TestTheClientGoesAroundWhatHoldsStreamsBack(t *testing.T) {
	t.Parallel() // it mostly waits
	for _, test := range []struct{ held, way string }{
		{"", "poll"}, // everything
		{"text/", "ndjson"},
	} {
		t.Run(test.way, func(t *testing.T) {
			s := startSite(t, 1000)
			s.hold.Store(test.held)
			b := openTab(t, chromium.Profile(t), s, "/module?room=lobby&patience=500&detour=3000")
			b.awaitWay(test.way)
			s.publish("lobby", numbers(1, 3)...)
			b.awaitLog(numbers(1, 3)...)

			s.hold.Store("none")
			for i := 4; i < 6; i++ { // polls and lines look around when something comes
				s.publish("lobby", fmt.Sprint(i))
				b.awaitLog(numbers(1, i)...)
			}
			b.awaitWay("sse")
			s.publish("lobby", "6")
			b.awaitLog(numbers(1, 6)...)
			b.Verify()
		})
	}
}

func TestHistoryThatIsTooMuchForTheWayComesInSmallerPages(t *testing.T) {
	s := startSite(t, 1000)
	s.publish("lobby", numbers(1, 300)...)
	s.narrow.Store(25_000) // some 240 events
	b := openTab(t, chromium.Profile(t), s, "/module?room=lobby&after=earliest")
	b.awaitLog(numbers(1, 300)...)
	b.Visit(s.url + "/module?room=lobby&last=250")
	b.awaitLog(numbers(51, 300)...)
	b.awaitState("live")
	b.Verify()
}

func TestStreamsThatAreCutShortAreFollowedAsLongAsTheyLeadOn(t *testing.T) {
	s := startSite(t, 1000)
	b := openTab(t, chromium.Profile(t), s, "/module?room=lobby")
	b.awaitState("live")
	s.narrow.Store(6_000) // the opening, and some 20 events
	s.silence()           // so that the stream of before is not used
	s.publish("lobby", numbers(1, 300)...)
	b.awaitLog(numbers(1, 300)...)
	b.Verify()
}

func TestASilentStreamIsTakenForDead(t *testing.T) {
	t.Parallel() // it mostly waits
	s := startSite(t, 1000)
	b := openTab(t, chromium.Profile(t), s, "/module?room=lobby")
	b.awaitWay("sse")
	s.publish("lobby", "1")
	b.awaitLog("1")
	s.silence()
	s.publish("lobby", "2")
	b.awaitLog("1", "2")
	b.awaitWay("sse")
	b.Verify()
}

func TestWhoIsHereIsTold(t *testing.T) {
	t.Parallel() // it mostly waits
	s := startSite(t, 1000)
	ann := openTab(t, chromium.Profile(t), s, "/module?room=lobby&presence=ann")
	ann.awaitState("live")
	bob := openTab(t, chromium.Profile(t), s, "/module?room=lobby&presence=bob")
	bob.awaitState("live")
	ann.awaitLog("join: bob")
	if got := browsertest.Evaluate[int](ann.Tab, "sluice.members('lobby').then((m) => m.count)"); got != 2 {
		t.Errorf("%d members are in the room, want 2", got)
	}
	left := time.Now()
	bob.Visit(s.url + "/blank")
	ann.awaitLog("join: bob", "leave: bob")
	if took := time.Since(left); took > 8*time.Second {
		t.Errorf("the leave took %v, as if nobody had said goodbye", took)
	}
	ann.Verify()
}

func TestTabsShareOneStream(t *testing.T) {
	t.Parallel() // it mostly waits
	s := startSite(t, 1000)
	browser := chromium.Profile(t)
	tabs := make([]*reader, 8) // over HTTP/1.1 a browser opens six connections
	for i := range tabs {
		tabs[i] = openTab(t, browser, s, "/module?room=lobby")
		tabs[i].awaitState("live")
	}
	if got := s.streams("lobby"); got != 1 {
		t.Fatalf("%d tabs have %d streams, want 1", len(tabs), got)
	}
	for i, b := range tabs {
		browsertest.Evaluate[bool](b.Tab, fmt.Sprintf("sluice.publish('lobby', '%d').then(() => true)", i+1))
	}
	for _, b := range tabs {
		b.awaitLog(numbers(1, 8)...)
	}

	leads := func(b *reader) bool {
		return browsertest.Evaluate[string](b.Tab, "String(document.body.dataset.leader)") == "true"
	}
	i := slices.IndexFunc(tabs, leads)
	if i < 0 {
		t.Fatal("no tab holds the stream")
	}
	leader := tabs[i]
	tabs = slices.Delete(tabs, i, i+1)
	leader.Visit(s.url + "/blank")
	s.publish("lobby", "9")
	for _, b := range tabs {
		b.awaitLog(numbers(1, 9)...)
		b.Verify()
	}
	s.awaitThat("one stream", func() bool { return s.streams("lobby") == 1 })
}

func TestTabsOfSeveralRoomsShareOneStream(t *testing.T) {
	t.Parallel() // it mostly waits
	s := startSite(t, 1000)
	browser := chromium.Profile(t)
	first := openTab(t, browser, s, "/module?room=lobby")
	first.awaitState("live")
	s.publish("lobby", "1")
	first.awaitLog("1")
	second := openTab(t, browser, s, "/module?room=news,lobby&after=earliest")
	second.awaitLog("1")
	s.awaitThat("the stream has both rooms", func() bool { return s.streams("news") == 1 && s.streams("lobby") == 1 })
	s.publish("lobby", "2")
	s.publish("news", "3")
	first.awaitLog("1", "2")
	second.Await("JSON.parse(document.body.textContent).length === 3")
	got := browsertest.Evaluate[[]string](second.Tab, "JSON.parse(document.body.textContent).sort()")
	if !slices.Equal(got, numbers(1, 3)) {
		t.Errorf("the second tab was told %q, want 1 to 3", got)
	}
	first.hasLog("1", "2")
}

func TestAReloadKeepsThePlace(t *testing.T) {
	t.Parallel() // it mostly waits
	s := startSite(t, 1000)
	b := openTab(t, chromium.Profile(t), s, "/module?room=lobby")
	b.awaitState("live")
	s.publish("lobby", "1", "2")
	b.awaitLog("1", "2")
	b.Visit(s.url + "/blank")
	s.awaitThat("the stream is gone", func() bool { return s.streams("lobby") == 0 })
	s.publish("lobby", "3", "4")
	b.Visit(s.url + "/module?room=lobby")
	b.awaitLog("3", "4")
	b.awaitState("live")
	b.Reload()
	b.awaitState("live")
	s.publish("lobby", "5")
	b.awaitLog("5")
	b.Verify()
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.beats) != 2 || s.beats[0] != http.MethodPost {
		t.Errorf("leaving twice ended streams by %q, want two POSTs", s.beats)
	}
}

// kept gives the data of all events in a room.
func (s *site) kept(room string) []string {
	s.t.Helper()
	var body struct{ Events []struct{ Data string } }
	if err := json.Unmarshal([]byte(s.do(http.MethodGet, "/rooms/"+room+"/events?limit=1000&after=earliest", "")), &body); err != nil {
		s.t.Fatal(err)
	}
	var texts []string
	for _, e := range body.Events {
		texts = append(texts, e.Data)
	}
	return texts
}

func TestTheClientBeginsSoManyEventsBack(t *testing.T) {
	t.Parallel() // it mostly waits
	s := startSite(t, 1000)
	s.publish("lobby", numbers(1, 9)...)
	s.publish("news", numbers(1, 3)...)
	b := openTab(t, chromium.Profile(t), s, "/module?room=lobby&last=4")
	b.awaitLog(numbers(6, 9)...)
	b.awaitState("live")
	s.publish("lobby", "10")
	b.awaitLog(numbers(6, 10)...)
	b.Visit(s.url + "/module?room=quiet&last=4")
	b.awaitState("live")
	s.publish("quiet", "first")
	b.awaitLog("first")
	b.Verify()
}

func TestWhatWaitsIsKnownAfterAReload(t *testing.T) {
	t.Parallel() // it mostly waits
	s := startSite(t, 1000)
	b := openTab(t, chromium.Profile(t), s, "/module?room=lobby")
	b.awaitState("live")
	s.cut.Store(true)
	browsertest.Evaluate[bool](b.Tab, "(sluice.publish('lobby', 'one', { key: 'k1' }), sluice.publish('lobby', { n: 2 }, { type: 'two' }), true)")
	b.Reload()
	const waiting = "sluice.pending().then((list) => list.map((p) => [p.room, p.type, JSON.stringify(p.data)].join(' ')))"
	if got, want := browsertest.Evaluate[[]string](b.Tab, waiting), []string{`lobby message "one"`, `lobby two {"n":2}`}; !slices.Equal(got, want) {
		t.Errorf("after a reload waits %q, want %q", got, want)
	}
	browsertest.Evaluate[bool](b.Tab, "(window.answer = sluice.pending().then(([p]) => p.answer), true)")
	s.cut.Store(false)
	browsertest.Evaluate[bool](b.Tab, "(handle.retry(), true)")
	if id := browsertest.Evaluate[string](b.Tab, "answer.then((r) => r.id)"); !strings.HasSuffix(id, "-1") {
		t.Errorf("the first to wait got position %q", id)
	}
	s.awaitThat("nothing waits", func() bool { return len(browsertest.Evaluate[[]string](b.Tab, waiting)) == 0 })
	b.Verify()
}

func TestAPublicationArrivesOnceWhateverHappens(t *testing.T) {
	t.Parallel() // it mostly waits
	s := startSite(t, 1000)
	b := openTab(t, chromium.Profile(t), s, "/module?room=lobby")
	b.awaitState("live")
	s.deaf.Store(true)
	browsertest.Evaluate[bool](b.Tab, "(window.receipt = sluice.publish('lobby', 'one'), sluice.publish('lobby', 'two').catch(() => {}), true)")
	b.awaitLog("one") // its answer was lost
	s.stop()
	b.Await("document.body.dataset.state !== 'live'")
	s.deaf.Store(false)
	s.start()
	if id := browsertest.Evaluate[string](b.Tab, "receipt.then((r) => r.id)"); !strings.HasSuffix(id, "-1") {
		t.Errorf("the receipt names the position %q, want that of the first event", id)
	}
	b.awaitLog("one", "two")

	s.cut.Store(true)
	browsertest.Evaluate[bool](b.Tab, "(sluice.publish('lobby', 'three').catch(() => {}), sluice.publish('lobby', 'four').catch(() => {}), true)")
	b.Reload()
	s.cut.Store(false)
	b.awaitLog("three", "four")
	s.awaitThat("nothing waits to be sent", func() bool {
		return browsertest.Evaluate[int](b.Tab, "Object.keys(localStorage).filter((k) => k.startsWith('sluice:out:')).length") == 0
	})
	if got, want := s.kept("lobby"), []string{"one", "two", "three", "four"}; !slices.Equal(got, want) {
		t.Errorf("the room has %q, want %q", got, want)
	}
}

func TestWhatIsRefusedIsTold(t *testing.T) {
	t.Parallel() // it mostly waits
	s := startSite(t, 1000)
	b := openTab(t, chromium.Profile(t), s, "/module?room=no/room")
	b.awaitState("denied")
	if got := browsertest.Evaluate[int](b.Tab, "sluice.publish('lobby', 'x', { type: 'NOT A TYPE' }).then(() => 0, (e) => e.status)"); got != http.StatusBadRequest {
		t.Errorf("publishing with a bad type failed with %d, want 400", got)
	}
	b = openTab(t, chromium.Profile(t), s, "/module?room=lobby&after=nonsense")
	b.awaitLog("gap: bad_cursor, null missed")
	b.awaitState("live")
	s.publish("lobby", "1")
	b.awaitLog("gap: bad_cursor, null missed", "1")
}

func TestATokenTravelsWithEachRequest(t *testing.T) {
	t.Parallel() // it mostly waits
	const secret = "a secret of thirty-two bytes, or more"
	verifier, err := auth.New(auth.Config{Keys: auth.Keys{Secrets: [][]byte{[]byte(secret)}}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(verifier.Close)
	signer, err := auth.SecretSigner([]byte(secret))
	if err != nil {
		t.Fatal(err)
	}
	token, err := signer.Sign(auth.Grant{
		Subject: "ann", IssuedAt: time.Now(), Expires: time.Now().Add(time.Hour), Subscribe: []string{"lobby"}, Publish: []string{"lobby"},
	})
	if err != nil {
		t.Fatal(err)
	}
	s := startSite(t, 1000, verifier)
	b := openTab(t, chromium.Profile(t), s, "/module?room=lobby&token="+token)
	b.awaitWay("sse")
	browsertest.Evaluate[bool](b.Tab, "sluice.publish('lobby', 'hello', { token: '"+token+"' }).then(() => true)")
	b.awaitLog("hello")
	b.Verify()
	b.Visit(s.url + "/module?room=secret&token=" + token)
	b.awaitState("denied")
	b.Visit(s.url + "/module?room=lobby")
	b.awaitState("denied")
}

func TestTheClassicScriptWorks(t *testing.T) {
	t.Parallel() // it mostly waits
	s := startSite(t, 1000)
	b := openTab(t, chromium.Profile(t), s, "/classic")
	b.awaitState("live")
	s.publish("lobby", "hello")
	b.Await("document.body.textContent === 'hello'")
	b.Verify()
}
