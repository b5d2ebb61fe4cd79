package browsertest

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
)

// Chat is a tab with the chat on it.
type Chat struct{ *Tab }

// OpenChat opens a room of the gateway at url under a name.
func (b *Browser) OpenChat(t *testing.T, name, url, room string, mayFail ...string) *Chat {
	t.Helper()
	named := fmt.Sprintf(`
	if (location.protocol === 'http:') sessionStorage['sluice.name'] ??= JSON.stringify(%q);`, name)
	c := &Chat{b.open(t, name, watch+named, mayFail)}
	c.Visit(url + "/?room=" + room)
	return c
}

// Say writes a message and sends it.
func (c *Chat) Say(texts ...string) {
	c.t.Helper()
	for _, text := range texts {
		c.Press("composer", text+"\n")
	}
}

// messages are those in the list, each with what it still waits for.
const messages = `[...document.querySelectorAll('[data-testid="message"]')]
	.map((m) => m.querySelector('[data-testid="text"]').textContent + (m.dataset.state ? ' (' + m.dataset.state + ')' : ''))`

// AwaitMessages waits until the list shows exactly these, in this order.
func (c *Chat) AwaitMessages(want ...string) {
	c.t.Helper()
	c.awaitList(messages, want)
}

// AwaitPeople waits until exactly these are said to be here: the reader, then the others by name.
func (c *Chat) AwaitPeople(want ...string) {
	c.t.Helper()
	c.awaitList(texts("person", "bdi"), want)
	c.Await(fmt.Sprintf(`document.querySelector('[data-testid="count"]').textContent === '%d'`, len(want)))
}

// AwaitNotes waits until the list says exactly this of who came and went, and of gaps.
func (c *Chat) AwaitNotes(testid string, want ...string) {
	c.t.Helper()
	c.awaitList(texts(testid, "span"), want)
}

func texts(testid, inside string) string {
	return `[...document.querySelectorAll('[data-testid="` + testid + `"] > ` + inside + `:last-child')].map((e) => e.textContent)`
}

func (c *Chat) awaitList(list string, want []string) {
	c.t.Helper()
	if want == nil {
		want = []string{}
	}
	b, err := json.Marshal(want)
	if err != nil {
		c.t.Fatal(err)
	}
	c.Await("JSON.stringify(" + list + ") === JSON.stringify(" + string(b) + ")")
}

// AwaitText waits until the element with a test id is to be seen and says something.
func (c *Chat) AwaitText(testid, part string) {
	c.t.Helper()
	c.Await(fmt.Sprintf(`(document.querySelector('[data-testid="%s"]:not([hidden])')?.textContent ?? '').includes(%q)`, testid, part))
}

// AwaitState waits until the page says how the connection is: live, reconnecting, offline.
func (c *Chat) AwaitState(states ...string) {
	c.t.Helper()
	c.Await(fmt.Sprintf(`%q.split(' ').includes(document.querySelector('[data-testid="state"]')?.dataset.state)`, strings.Join(states, " ")))
}

// Gaps counts the lines that say that messages are missing.
func (c *Chat) Gaps() int {
	c.t.Helper()
	return Evaluate[int](c.Tab, `document.querySelectorAll('[data-testid="gap"]').length`)
}
