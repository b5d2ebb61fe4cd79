package static

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"testing"

	"sluice/static/browsertest"
)

// texts gives what was said in a room on the page, in order.
func (s *site) texts(room string) []string {
	s.t.Helper()
	var body struct {
		Events []struct{ Data struct{ Text string } }
	}
	if err := json.Unmarshal([]byte(s.do(http.MethodGet, "/rooms/"+room+"/events?limit=1000&after=earliest", "")), &body); err != nil {
		s.t.Fatal(err)
	}
	var texts []string
	for _, e := range body.Events {
		texts = append(texts, e.Data.Text)
	}
	return texts
}

func TestPeopleSeeEachOther(t *testing.T) {
	t.Parallel() // it mostly waits
	s, browser := startSite(t, 1000), chromium.Profile(t)
	ann := browser.OpenChat(t, "Ann", s.url, "lobby")
	ann.AwaitPeople("Ann")
	ann.AwaitText("here", "1 person here")
	bob := browser.OpenChat(t, "Bob", s.url, "lobby")
	bob.AwaitPeople("Bob", "Ann")
	ann.AwaitPeople("Ann", "Bob")
	ann.AwaitNotes("coming", "Bob joined")

	bob.Press("composer", "hel")
	ann.AwaitText("typing", "Bob is writing")
	bob.Say("lo")
	ann.AwaitMessages("hello")
	ann.Await(`document.querySelector('[data-testid="typing"]').hidden`)
	if left := browsertest.Evaluate[string](bob.Tab, `document.querySelector('[data-testid="composer"]').value`); left != "" {
		t.Errorf("after a message was sent, the field holds %q", left)
	}
	const markup = "<img src=x onerror=alert(1)> is text"
	ann.Say(markup)
	bob.AwaitMessages("hello", markup)

	bob.Reload() // which is no word to anybody
	bob.AwaitPeople("Bob", "Ann")
	bob.AwaitMessages("hello", markup)
	bob.Verify()
	bob.Visit(s.url + "/blank")
	ann.AwaitPeople("Ann")
	ann.AwaitNotes("coming", "Bob joined", "Bob left")
	ann.Verify()
}

func TestWhatWasWrittenWhileTheGatewayWasAwayGoesOutOnceAndInOrder(t *testing.T) {
	t.Parallel() // it mostly waits
	s, browser := startSite(t, 1000), chromium.Profile(t)
	ann := browser.OpenChat(t, "Ann", s.url, "lobby", s.url)
	bob := browser.OpenChat(t, "Bob", s.url, "lobby", s.url)
	ann.AwaitState("live")
	bob.AwaitState("live")
	ann.Say("before")
	bob.AwaitMessages("before")

	s.stop()
	ann.AwaitState("reconnecting")
	ann.Say("one", "two", "three")
	ann.AwaitMessages("before", "one (sending)", "two (sending)", "three (sending)")
	ann.AwaitText("messages", "Waiting for the connection")
	ann.Reload() // what waits is kept, and goes on waiting
	ann.AwaitMessages("one (sending)", "two (sending)", "three (sending)")
	s.start()
	browsertest.Evaluate[bool](ann.Tab, `(document.querySelector('[data-testid="reconnect"]').click(), true)`) // who can wait need not
	said := []string{"before", "one", "two", "three"}
	ann.AwaitMessages(said...)
	bob.AwaitMessages(said...)
	if got := s.texts("lobby"); !slices.Equal(got, said) {
		t.Errorf("the room has %q, want %q", got, said)
	}
	ann.Verify()
	bob.Verify()
}

func TestWhatIsWrittenOfflineWaitsForTheNetwork(t *testing.T) {
	t.Parallel() // it mostly waits
	s, browser := startSite(t, 1000), chromium.Profile(t)
	ann := browser.OpenChat(t, "Ann", s.url, "lobby", s.url)
	ann.AwaitState("live")
	ann.Offline(true)
	ann.AwaitState("offline")
	ann.AwaitText("banner", "You are offline")
	ann.Say("one", "two")
	ann.AwaitMessages("one (sending)", "two (sending)")
	s.publish("lobby", "meanwhile")
	ann.Offline(false)
	ann.AwaitState("live")
	ann.AwaitMessages("meanwhile", "one", "two")
	ann.Verify()
}

func TestAProxyThatHoldsStreamsBackIsGoneAround(t *testing.T) {
	t.Parallel() // it mostly waits
	s, browser := startSite(t, 1000), chromium.Profile(t)
	s.hold.Store("") // every response, until its end
	s.hasty = true
	ann := browser.OpenChat(t, "Ann", s.url, "lobby")
	ann.Await(`document.querySelector('[data-testid="state"]').dataset.way === 'poll'`)
	ann.AwaitState("live")
	ann.Say("by long poll")
	ann.AwaitMessages("by long poll")
	said := append([]string{"by long poll"}, numbers(1, 3)...)
	s.publish("lobby", numbers(1, 3)...)
	ann.AwaitMessages(said...)

	s.hold.Store("none")
	for i := 4; i < 6; i++ {
		s.publish("lobby", fmt.Sprint(i))
		said = append(said, fmt.Sprint(i))
		ann.AwaitMessages(said...)
	}
	ann.Await(`document.querySelector('[data-testid="state"]').dataset.way === 'sse'`)
	s.publish("lobby", "6")
	ann.AwaitMessages(append(said, "6")...)
	if n := ann.Gaps(); n > 0 {
		t.Errorf("the page tells of %d gaps", n)
	}
	ann.Verify()
}

func TestEightTabsOfTheChatShareOneStream(t *testing.T) {
	t.Parallel() // it mostly waits
	s, browser := startSite(t, 1000), chromium.Profile(t)
	tabs := make([]*browsertest.Chat, 8) // over HTTP/1.1 a browser opens six connections
	for i := range tabs {
		tabs[i] = browser.OpenChat(t, "Ann", s.url, "lobby")
		tabs[i].AwaitState("live")
	}
	var said []string
	for i, tab := range tabs {
		tab.Say(fmt.Sprint(i))
		said = append(said, fmt.Sprint(i))
		tab.AwaitMessages(said...)
	}
	for _, tab := range tabs {
		tab.AwaitMessages(said...)
		tab.AwaitPeople("Ann")
		tab.Verify()
	}
	if got := s.streams("lobby"); got != 1 {
		t.Errorf("%d tabs have %d streams, want 1", len(tabs), got)
	}
}

// top is how far the message with a text is from the upper edge of the view.
func top(c *browsertest.Chat, text string) int {
	return browsertest.Evaluate[int](c.Tab, fmt.Sprintf(`Math.round([...document.querySelectorAll('[data-testid="message"]')]
		.find((m) => m.querySelector('[data-testid="text"]').textContent === %q).getBoundingClientRect().top)`, text))
}

func TestAReloadOfTheChatKeepsThePlace(t *testing.T) {
	t.Parallel() // it mostly waits
	s, browser := startSite(t, 1000), chromium.Profile(t)
	s.publish("lobby", numbers(1, 180)...)
	ann := browser.OpenChat(t, "Ann", s.url, "lobby")
	ann.AwaitState("live")
	ann.AwaitMessages(numbers(131, 180)...)
	ann.Await(`(({ scrollTop, scrollHeight, clientHeight }) => scrollTop > 0 && scrollHeight - scrollTop - clientHeight < 80)(document.getElementById('scroll'))`)

	scroll := func(to string) {
		browsertest.Evaluate[bool](ann.Tab, "(document.getElementById('scroll').scrollTop = "+to+", true)")
	}
	scroll("300")
	before := top(ann, "145")
	ann.Await(`document.querySelectorAll('[data-testid="message"]').length > 50`)
	if after := top(ann, "145"); after < before-2 || after > before+2 {
		t.Errorf("loading what is older moved what is in view from %d to %d", before, after)
	}
	s.publish("lobby", "181")
	ann.AwaitText("jump", "1 new message")
	before = top(ann, "145")

	ann.Reload()
	ann.AwaitState("live")
	ann.AwaitText("messages", "145")
	ann.AwaitText("jump", "Newest messages")
	if after := top(ann, "145"); after < before-2 || after > before+2 {
		t.Errorf("the reload moved what was in view from %d to %d", before, after)
	}
	for _, shown := range []int{100, 150, 181} {
		scroll("0")
		ann.Await(fmt.Sprintf(`document.querySelectorAll('[data-testid="message"]').length >= %d`, shown))
	}
	ann.AwaitText("start", "This is where #lobby begins")
	ann.AwaitMessages(numbers(1, 181)...)
	ann.Verify()
}

func TestAGapIsALineThatSaysHowManyAndWhy(t *testing.T) {
	t.Parallel() // it mostly waits
	s, browser := startSite(t, 5), chromium.Profile(t)
	ann := browser.OpenChat(t, "Ann", s.url, "lobby", s.url)
	ann.AwaitState("live")
	s.publish("lobby", "1")
	ann.AwaitMessages("1")
	s.stop()
	ann.AwaitState("reconnecting")
	s.cut.Store(true)
	s.start()
	s.publish("lobby", numbers(2, 11)...)
	s.cut.Store(false)
	ann.AwaitMessages(append([]string{"1"}, numbers(7, 11)...)...)
	ann.AwaitNotes("gap", "5 messages here are no longer kept")
	ann.Verify()
}

func TestWhatComesWhileNobodyLooksIsMarked(t *testing.T) {
	t.Parallel() // it mostly waits
	s, browser := startSite(t, 1000), chromium.Profile(t)
	ann := browser.OpenChat(t, "Ann", s.url, "lobby")
	ann.AwaitState("live")
	s.publish("lobby", "seen")
	ann.AwaitMessages("seen")
	ann.Hide()
	s.publish("lobby", "a", "b")
	ann.Await(`document.title.startsWith('(2) #lobby')`)
	const marked = `document.querySelector('[data-testid="unread"]').nextElementSibling.querySelector('[data-testid="text"]').textContent`
	if got := browsertest.Evaluate[string](ann.Tab, marked); got != "a" {
		t.Errorf("the line stands before %q, want it before a", got)
	}
	ann.Show()
	ann.Await(`document.title.startsWith('#lobby')`)
	ann.Say("I have read it")
	ann.Await(`!document.querySelector('[data-testid="unread"]')`)

	ann.Visit(s.url + "/blank")
	s.publish("lobby", "c")
	ann.Visit(s.url + "/?room=lobby")
	ann.AwaitMessages("seen", "a", "b", "I have read it", "c")
	if got := browsertest.Evaluate[string](ann.Tab, marked); got != "c" {
		t.Errorf("after a while away the line stands before %q, want it before c", got)
	}
	ann.Verify()
}

func TestWhoIsRenamedGoesOnAsSomebodyElse(t *testing.T) {
	t.Parallel() // it mostly waits
	s, browser := startSite(t, 1000), chromium.Profile(t)
	ann := browser.OpenChat(t, "Ann", s.url, "lobby")
	bob := browser.OpenChat(t, "Bob", s.url, "lobby")
	ann.AwaitPeople("Ann", "Bob")
	browsertest.Evaluate[bool](bob.Tab, "(document.getElementById('name').value = '', true)")
	bob.Press("name", "Robert\n")
	bob.AwaitPeople("Robert", "Ann")
	ann.AwaitPeople("Ann", "Robert")
	bob.Say("it is me")
	ann.AwaitMessages("it is me")
	ann.Reload()
	ann.AwaitMessages("it is me")
	ann.Verify()
	bob.Verify()
}

// TestTheChatIsForEverybody: with people, messages of all kinds, a gap, a failure, and the drawer open.
func TestTheChatIsForEverybody(t *testing.T) {
	t.Parallel() // it mostly waits
	axe := browsertest.LoadAxe(t)
	s, browser := startSite(t, 5), chromium.Profile(t)
	empty := browser.OpenChat(t, "Cid", s.url, "quiet")
	empty.AwaitState("live")
	axe.Check(empty.Tab)
	empty.Close()

	ann := browser.OpenChat(t, "Ann", s.url, "lobby", s.url)
	bob := browser.OpenChat(t, "Bob", s.url, "lobby", s.url)
	ann.AwaitPeople("Ann", "Bob")
	ann.Say("hello, look at https://example.com/")
	s.publish("lobby", "from a terminal")
	s.do(http.MethodPost, "/rooms/lobby/events?type=gauge", `{"level":2.41,"gates":["east","west"],"open":true}`)
	ann.Await(shown("hello, look at https://example.com/") + " && " + shown("from a terminal") + " && " +
		`document.querySelectorAll('[data-testid="message"]').length === 3`)
	s.cut.Store(true)
	s.stop()
	ann.AwaitState("reconnecting")
	ann.Say("not yet")
	ann.AwaitText("banner", "The connection is lost")
	axe.Check(ann.Tab)
	s.start()
	s.publish("lobby", numbers(1, 9)...)
	s.cut.Store(false)
	ann.AwaitState("live")
	// Whether what was written meanwhile goes out before the stream is back or after it, nobody promises.
	ann.Await(shown("9") + " && " + shown("not yet") + ` && document.querySelector('[data-testid="gap"]')`)
	bob.AwaitState("live")
	bob.Press("composer", "well")
	axe.CheckAll(ann.Tab, func() {
		browsertest.Evaluate[bool](ann.Tab, `(document.querySelector('#side:popover-open') || document.querySelector('[data-testid="menu"]').click(), true)`)
		ann.Await("document.getElementById('side').matches(':popover-open')")
	})
	ann.Verify()
}

// shown is a condition: that a message with this text is in the list, and waits for nothing.
func shown(text string) string {
	return fmt.Sprintf(`[...document.querySelectorAll('[data-testid="message"]:not([data-state]) [data-testid="text"]')].some((e) => e.textContent === %q)`, text)
}
