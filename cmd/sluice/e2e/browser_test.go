package e2e

import (
	"testing"

	"sluice/fanout/redistest"
)

// TestTwoPeopleChatAcrossANodesDeath: what a person sees of it is a word in the
// corner for a moment.
func TestTwoPeopleChatAcrossANodesDeath(t *testing.T) {
	t.Parallel() // it mostly waits
	redis := redistest.Start(t)
	first, second := startNode(t, redis.URL()), startNode(t, redis.URL())
	ann := chromium.Profile(t).OpenChat(t, "Ann", first.url, "lobby", first.url)
	ann.AwaitPeople("Ann")
	bob := chromium.Profile(t).OpenChat(t, "Bob", second.url, "lobby")
	ann.AwaitPeople("Ann", "Bob")
	ann.AwaitNotes("coming", "Bob joined")
	bob.AwaitPeople("Bob", "Ann")

	const markup = "<img src=x onerror=alert(1)> is text"
	ann.Say("hello from Ann")
	bob.AwaitMessages("hello from Ann")
	bob.Say(markup)
	ann.AwaitMessages("hello from Ann", markup)

	first.kill()
	ann.AwaitState("reconnecting")
	bob.Say("are you there?")
	bob.AwaitMessages("hello from Ann", markup, "are you there?")
	ann.Say("back soon")
	ann.AwaitMessages("hello from Ann", markup, "back soon (sending)")
	first.start()
	ann.AwaitState("live")

	said := []string{"hello from Ann", markup, "are you there?", "back soon"}
	ann.AwaitMessages(said...)
	bob.AwaitMessages(said...)
	bob.Say("welcome back")
	said = append(said, "welcome back")
	ann.AwaitMessages(said...)
	ann.Reload()
	ann.AwaitState("live")
	ann.AwaitMessages(said...)
	ann.AwaitPeople("Ann", "Bob")
	ann.Verify()

	ann.Visit(first.url + "/icon.svg")
	bob.AwaitPeople("Bob")
	bob.Await(`[...document.querySelectorAll('[data-testid="coming"]')].at(-1).textContent === 'Ann left'`)
	if n := ann.Gaps() + bob.Gaps(); n > 0 {
		t.Errorf("the pages tell of %d gaps", n)
	}
	bob.Verify()
}
