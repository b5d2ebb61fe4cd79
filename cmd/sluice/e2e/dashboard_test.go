package e2e

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os/exec"
	"strings"
	"sync"
	"testing"

	"github.com/chromedp/chromedp"

	"sluice/fanout/redistest"
)

// hold keeps a stream open until the test ends.
func hold(t *testing.T, url string) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := newClient().Do(req) // whose one connection is the stream's
	if err != nil {
		t.Fatal(err)
	}
	if resp.StatusCode != http.StatusOK {
		t.Fatalf("%s: %s", url, resp.Status)
	}
	var reading sync.WaitGroup
	reading.Go(func() { _, _ = io.Copy(io.Discard, resp.Body) })
	t.Cleanup(func() {
		cancel()
		reading.Wait()
		_ = resp.Body.Close()
	})
}

// do has the page do something, as a person would.
func (b *tab) do(what string, actions ...chromedp.Action[chromedp.Void]) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, patience)
	defer cancel()
	if err := chromedp.Do(ctx, actions...); err != nil {
		b.t.Fatalf("%s: %s: %v", b.name, what, err)
	}
}

// the gives the element with a test id, and more of a selector.
func the(testID string, more ...string) chromedp.CSS {
	return chromedp.CSS(`[data-testid="` + testID + `"]` + strings.Join(more, ""))
}

// awaitNode waits until the dashboard shows a node in a state; "" is not at all.
func (b *tab) awaitNode(name, state string) {
	b.t.Helper()
	row := fmt.Sprintf(`document.querySelector('[data-testid="node"][data-name="%s"]')`, name)
	if state == "" {
		b.await("node "+name+" is gone", "!"+row)
		return
	}
	b.await("node "+name+" is "+state, row+`?.dataset.state === '`+state+`'`)
}

func TestTheDashboardShowsAllNodesAndWhatBecomesOfThem(t *testing.T) {
	redis := redistest.Start(t)
	a := startNode(t, redis.URL(), "--node-name=alpha")
	b := startNode(t, redis.URL(), "--node-name=beta")
	c := startNode(t, redis.URL(), "--node-name=gamma", "--drain=1s")
	for _, n := range []*node{a, b} {
		hold(t, n.url+"/rooms/lobby/events?presence="+n.addr)
		hold(t, n.url+"/rooms/quiet/events")
	}
	tab := openTab(t, startBrowser(t), "dashboard", a.url+"/dashboard")
	tab.awaitState("===", "live")
	for _, name := range []string{"alpha", "beta", "gamma"} {
		tab.awaitNode(name, "serving")
	}
	tab.await("the totals are those of all nodes", `document.querySelector('[data-testid="total-streams"] b').textContent === '5'
		&& document.querySelector('[data-testid="total-members"] b').textContent === '2'`)
	for _, chart := range []string{"streams", "in", "out", "bytes", "delivery", "redis", "trouble"} {
		tab.await("the chart "+chart+" has points", fmt.Sprintf(`document.querySelector('[data-testid="chart-%s"]').dataset.points >= 3`, chart))
	}
	tab.await("a line is drawn", `document.querySelector('[data-testid="chart-streams"] .line').getAttribute('d').includes('L')`)

	// A node that ends in order is gone at once; one that was killed is silent.
	c.stop()
	tab.awaitNode("gamma", "")
	b.kill()
	tab.awaitNode("beta", "silent")
	tab.awaitNode("alpha", "serving")
	tab.await("the list of what happened says so", `document.querySelector('[data-testid="log"]').textContent.includes('beta is silent')`)
	b.start()
	tab.awaitNode("beta", "serving")
	tab.await("its earlier process is listed no more", `document.querySelectorAll('[data-testid="node"]').length === 2`)

	// Without Redis the viewer's own node is all that is heard.
	redis.Kill()
	tab.await("a banner says so", `document.querySelector('[data-testid="banner"]').checkVisibility()
		&& document.querySelector('[data-testid="banner"]').textContent.includes('Redis is out of reach of alpha')`)
	tab.awaitNode("beta", "silent")
	redis.Restart()
	tab.await("it is over", `document.querySelector('[data-testid="banner"]').hidden`)
	tab.awaitNode("alpha", "serving")
	tab.awaitNode("beta", "serving")
	tab.verify()
}

func TestTheDashboardInspectsARoom(t *testing.T) {
	redis := redistest.Start(t)
	a := startNode(t, redis.URL(), "--node-name=alpha")
	b := startNode(t, redis.URL(), "--node-name=beta")
	hold(t, b.url+"/rooms/lobby/events?presence=ann")
	client := newClient()
	defer client.CloseIdleConnections()
	say := func(text string) {
		t.Helper()
		post(t, client, b.url+"/rooms/lobby/events", "text/plain", text, http.StatusCreated)
	}
	for i := range 60 {
		say(fmt.Sprintf("line %d", i))
	}
	tab := openTab(t, startBrowser(t), "dashboard", a.url+"/dashboard")
	tab.await("the room is among the busiest", `document.querySelector('[data-testid="room"][data-room="lobby"]')`)
	tab.do("opening the room", chromedp.Click(the("room", `[data-room="lobby"] button`)))
	tab.await("the room is live", `document.querySelector('[data-testid="room-state"]').dataset.state === 'live'`)
	const shows = `[...document.querySelectorAll('[data-testid="event-data"]')].map((e) => e.textContent)`
	tab.await("its newest events are there", shows+`.at(-1) === 'line 59' && !`+shows+`.includes('line 0')`)
	tab.await("its member is counted", `document.querySelector('[data-testid="members-count"]').textContent === '1'`)
	tab.do("paging back", chromedp.Click(the("earlier")))
	tab.await("the first event is there", shows+`[0] === 'line 0'`)

	const markup = "<img src=x onerror=alert(1)>"
	say(markup)
	tab.await("what another node takes is there, as text", shows+`.at(-1) === '`+markup+`'`)
	tab.do("publishing", chromedp.SendKeys(the("data"), `{"said":"here"}`), chromedp.Click(the("publish-go")))
	tab.await("the event is there", shows+`.at(-1) === '{"said":"here"}'`)
	tab.await("it is acknowledged", `document.querySelector('[data-testid="published"]').textContent === 'Published as event 62'`)

	tab.do("closing the room", chromedp.Click(the("close")))
	tab.await("it is closed", `!document.querySelector('[data-testid="inspector"]').open && location.hash === ''`)
	tab.do("typing another room's name", chromedp.SendKeys(the("find-room"), "nowhere\n"))
	tab.await("it is open, and empty", `document.querySelector('[data-testid="inspected"]').textContent === 'nowhere'
		&& document.querySelector('[data-testid="room-state"]').dataset.state === 'live' && `+shows+`.length === 0`)
	tab.verify()
}

func TestTheDashboardAsksForATokenAndKeepsItInItsTab(t *testing.T) {
	const secret = "a secret of thirty-two bytes, or more"
	n := startNode(t, "", "--jwt-secret="+secret)
	token := func(args ...string) string {
		t.Helper()
		out, err := exec.Command(program, append([]string{"token", "--secret", secret, "--sub", "ops"}, args...)...).Output()
		if err != nil {
			t.Fatalf("making a token: %v", err)
		}
		return strings.TrimSpace(string(out))
	}
	tab := openTab(t, startBrowser(t), "dashboard", n.url+"/dashboard", n.url) // whose refusals the browser reports
	const open = `!document.querySelector('[data-testid="gate"]').hidden && document.querySelector('[data-testid="board"]').hidden`
	tab.await("it asks for a token", open)
	why := func(words string) string {
		return open + `&& document.querySelector('[data-testid="gate-why"]').textContent.includes('` + words + `')`
	}
	tab.do("giving a token without the right", chromedp.SendKeys(the("token"), token("--subscribe", "*")+"\n"))
	tab.await("it says so", why("has not the right"))
	tab.do("giving nonsense", chromedp.SendKeys(the("token"), "nonsense\n"))
	tab.await("it says so", why("not valid"))
	tab.do("giving one with it", chromedp.SendKeys(the("token"), token("--admin")+"\n"))
	const live = `document.querySelector('[data-testid="gate"]').hidden && document.querySelector('[data-testid="node"]')`
	tab.await("it shows the node", live)
	tab.do("loading it anew", chromedp.Reload())
	tab.await("it shows the node without asking", live)
	if got := tab.evaluate(`JSON.stringify([localStorage, document.cookie]).includes('eyJ')`); got != "false" {
		t.Error("the token is kept where it outlives the tab")
	}
	tab.do("forgetting the token", chromedp.Click(the("forget")))
	tab.await("it asks again", open)
	if got := tab.evaluate(`JSON.stringify({...sessionStorage}).includes('eyJ')`); got != "false" {
		t.Error("the token is not forgotten")
	}
	tab.verify()
}
