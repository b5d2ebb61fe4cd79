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

	"sluice/fanout/redistest"
	"sluice/static/browsertest"
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

// awaitNode waits until the dashboard shows a node in a state; "" is not at all.
func awaitNode(tab *browsertest.Tab, name, state string) {
	row := fmt.Sprintf(`document.querySelector('[data-testid="node"][data-name="%s"]')`, name)
	if state == "" {
		tab.Await("!" + row)
		return
	}
	tab.Await(row + `?.dataset.state === '` + state + `'`)
}

func TestTheDashboardShowsAllNodesAndWhatBecomesOfThem(t *testing.T) {
	t.Parallel() // it mostly waits
	redis := redistest.Start(t)
	a := startNode(t, redis.URL(), "--node-name=alpha")
	b := startNode(t, redis.URL(), "--node-name=beta")
	c := startNode(t, redis.URL(), "--node-name=gamma", "--drain=1s")
	for _, n := range []*node{a, b} {
		hold(t, n.url+"/rooms/lobby/events?presence="+n.addr)
		hold(t, n.url+"/rooms/quiet/events")
	}
	tab := chromium.Profile(t).Open(t, "dashboard", a.url+"/dashboard")
	tab.Await(`document.querySelector('[data-testid="state"]').dataset.state === 'live'`)
	for _, name := range []string{"alpha", "beta", "gamma"} {
		awaitNode(tab, name, "serving")
	}
	tab.Await(`document.querySelector('[data-testid="total-streams"] b').textContent === '5'
		&& document.querySelector('[data-testid="total-members"] b').textContent === '2'`)
	for _, chart := range []string{"streams", "in", "out", "bytes", "delivery", "redis", "trouble"} {
		tab.Await(fmt.Sprintf(`document.querySelector('[data-testid="chart-%s"]').dataset.points >= 3`, chart))
	}
	tab.Await(`document.querySelector('[data-testid="chart-streams"] .line').getAttribute('d').includes('L')`)

	browsertest.LoadAxe(t).CheckAll(tab, nil)

	// A node that ends in order is gone at once; one that was killed is silent.
	c.stop()
	awaitNode(tab, "gamma", "")
	b.kill()
	awaitNode(tab, "beta", "silent")
	awaitNode(tab, "alpha", "serving")
	tab.Await(`document.querySelector('[data-testid="log"]').textContent.includes('beta is silent')`)
	b.start()
	awaitNode(tab, "beta", "serving")
	tab.Await(`document.querySelectorAll('[data-testid="node"]').length === 2`)

	// Without Redis the viewer's own node is all that is heard.
	redis.Kill()
	tab.Await(`document.querySelector('[data-testid="banner"]').checkVisibility()
		&& document.querySelector('[data-testid="banner"]').textContent.includes('Redis is out of reach of alpha')`)
	awaitNode(tab, "beta", "silent")
	redis.Restart()
	tab.Await(`document.querySelector('[data-testid="banner"]').hidden`)
	awaitNode(tab, "alpha", "serving")
	awaitNode(tab, "beta", "serving")
	tab.Verify()
}

func TestTheDashboardInspectsARoom(t *testing.T) {
	t.Parallel() // it mostly waits
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
	tab := chromium.Profile(t).Open(t, "dashboard", a.url+"/dashboard")
	tab.Await(`document.querySelector('[data-testid="room"][data-room="lobby"]')`)
	tab.Click("room", `[data-room="lobby"] button`)
	tab.Await(`document.querySelector('[data-testid="room-state"]').dataset.state === 'live'`)
	const shows = `[...document.querySelectorAll('[data-testid="event-data"]')].map((e) => e.textContent)`
	tab.Await(shows + `.at(-1) === 'line 59' && !` + shows + `.includes('line 0')`)
	tab.Await(`document.querySelector('[data-testid="members-count"]').textContent === '1'`)
	tab.Click("earlier")
	tab.Await(shows + `[0] === 'line 0'`)

	const markup = "<img src=x onerror=alert(1)>"
	say(markup)
	tab.Await(shows + `.at(-1) === '` + markup + `'`)
	tab.Press("data", `{"said":"here"}`)
	tab.Click("publish-go")
	tab.Await(shows + `.at(-1) === '{"said":"here"}'`)
	tab.Await(`document.querySelector('[data-testid="published"]').textContent === 'Published as event 62'`)

	tab.Click("close")
	tab.Await(`!document.querySelector('[data-testid="inspector"]').open && location.hash === ''`)
	tab.Press("find-room", "nowhere\n")
	tab.Await(`document.querySelector('[data-testid="inspected"]').textContent === 'nowhere'
		&& document.querySelector('[data-testid="room-state"]').dataset.state === 'live' && ` + shows + `.length === 0`)
	tab.Verify()
}

func TestTheDashboardAsksForATokenAndKeepsItInItsTab(t *testing.T) {
	t.Parallel() // it mostly waits
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
	tab := chromium.Profile(t).Open(t, "dashboard", n.url+"/dashboard", n.url) // whose refusals the browser reports
	const open = `!document.querySelector('[data-testid="gate"]').hidden && document.querySelector('[data-testid="board"]').hidden`
	tab.Await(open)
	why := func(words string) string {
		return open + `&& document.querySelector('[data-testid="gate-why"]').textContent.includes('` + words + `')`
	}
	tab.Press("token", token("--subscribe", "*")+"\n")
	tab.Await(why("has not the right"))
	tab.Press("token", "nonsense\n")
	tab.Await(why("not valid"))
	tab.Press("token", token("--admin")+"\n")
	const live = `document.querySelector('[data-testid="gate"]').hidden && document.querySelector('[data-testid="node"]')`
	tab.Await(live)
	tab.Reload()
	tab.Await(live)
	if browsertest.Evaluate[bool](tab, `JSON.stringify([localStorage, document.cookie]).includes('eyJ')`) {
		t.Error("the token is kept where it outlives the tab")
	}
	tab.Click("forget")
	tab.Await(open)
	if browsertest.Evaluate[bool](tab, `JSON.stringify({...sessionStorage}).includes('eyJ')`) {
		t.Error("the token is not forgotten")
	}
	tab.Verify()
}
