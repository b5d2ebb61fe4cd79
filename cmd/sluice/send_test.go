package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
	"time"
)

// texts is what was published to a room, as texts.
func texts(t *testing.T, g *testGateway, room string) []string {
	t.Helper()
	var out []string
	for _, e := range g.events(room) {
		var text string
		if err := json.Unmarshal(e.data, &text); err != nil {
			t.Fatalf("event %s holds %s: %v", e.id, e.data, err)
		}
		out = append(out, text)
	}
	return out
}

func TestSendPublishesOneEvent(t *testing.T) {
	for _, c := range []struct {
		args             []string
		kind, data, mime string
	}{
		{[]string{"hello <&> ✓\nworld\r\n"}, "message", `"hello \u003c\u0026\u003e ✓\nworld\r\n"`, "text/plain; charset=utf-8"},
		{[]string{""}, "message", `""`, "text/plain; charset=utf-8"},
		{[]string{"--", "-x"}, "message", `"-x"`, "text/plain; charset=utf-8"},
		{[]string{`{"n": 1.0}`, "--json", "--type=note"}, "note", `{"n": 1.0}`, "application/json"},
	} {
		g := newTestGateway(t)
		stdout, stderr := sluice(t, 0, append([]string{"send", "lobby", "--print-id", "--token=t", "--url", g.URL}, c.args...)...)
		events, posts := g.events("lobby"), g.seenPosts()
		if len(events) != 1 || events[0].kind != c.kind || string(events[0].data) != c.data {
			t.Errorf("%q: published %v, want %s %s", c.args, events, c.kind, c.data)
			continue
		}
		if posts[0].kind != c.mime || posts[0].auth != "Bearer t" || len(posts[0].key) < 20 {
			t.Errorf("%q: posted as %+v", c.args, posts[0])
		}
		if stdout != "e1-1\n" || stderr != "" {
			t.Errorf("%q: stdout %q, stderr %q, want the id and nothing", c.args, stdout, stderr)
		}
	}
}

func TestSendRetriesWithTheSameKey(t *testing.T) {
	t.Parallel() // it mostly waits
	g := newTestGateway(t)
	g.planPosts(postPlan{drop: true}, postPlan{status: 503, detail: "no log"}, postPlan{lose: true}, postPlan{status: 502}, postPlan{status: 429})
	stdout, stderr := sluice(t, 0, "send", "lobby", "hello", "--print-id", "--url", g.URL)
	if got := texts(t, g, "lobby"); !slices.Equal(got, []string{"hello"}) {
		t.Errorf("published %q, want hello once", got)
	}
	posts := g.seenPosts()
	if len(posts) != 6 {
		t.Errorf("%d attempts, want 6", len(posts))
	}
	for _, p := range posts {
		if p.key == "" || p.key != posts[0].key || string(p.body) != "hello" {
			t.Errorf("an attempt with key %q and body %q, the first had %q", p.key, p.body, posts[0].key)
		}
	}
	if stdout != "e1-1\n" || !strings.Contains(stderr, "503: no log; trying again in") {
		t.Errorf("stdout %q, stderr %q", stdout, stderr)
	}
}

func TestSendLinesRetriesWithTheSameKeys(t *testing.T) {
	t.Parallel() // it mostly waits
	g := newTestGateway(t)
	g.planPosts(postPlan{lose: true}, postPlan{status: 503}, postPlan{}, postPlan{lose: true})
	in, line := io.Pipe()
	p := start(t, in, nil, "send", "lobby", "-", "--url", g.URL)
	fmt.Fprint(line, "a\nb\nc\n")
	g.await(t, "third attempt", func() bool { return len(g.posts) == 3 })
	fmt.Fprint(line, "d\n")
	line.Close()
	p.wait(t, 0)
	if got := texts(t, g, "lobby"); !slices.Equal(got, []string{"a", "b", "c", "d"}) {
		t.Errorf("published %q, want a, b, c and d once each", got)
	}
}

func TestSendWaitsAsLongAsTheGatewayAsks(t *testing.T) {
	t.Parallel() // it mostly waits
	g := newTestGateway(t)
	g.planPosts(postPlan{status: 429, retryAfter: "1"})
	sluice(t, 0, "send", "lobby", "hello", "--url", g.URL)
	posts := g.seenPosts()
	if waited := posts[1].at.Sub(posts[0].at); waited < time.Second {
		t.Errorf("came back after %v, want at least a second", waited)
	}
}

func TestSendGivesUpAndSaysHowToGoOn(t *testing.T) {
	for _, c := range []struct {
		plan     postPlan
		args     []string
		want     []string
		wantNot  string
		attempts int
	}{
		{postPlan{status: 503, retryAfter: "3600"}, []string{"--key=k"}, []string{"503", "gave up after 1 attempts", "--key k within ten minutes"}, "", 1},
		{postPlan{status: 422, detail: "key used with another body"}, nil, []string{"422: key used with another body"}, "--key", 1},
		{postPlan{status: 401, detail: "expired"}, nil, []string{"expired", "--token"}, "--key", 1},
		{postPlan{status: 413, detail: "too large"}, nil, []string{"too large"}, "--key", 1},
		{postPlan{status: 429, retryAfter: "3600"}, nil, []string{"429"}, "--key", 1},
	} {
		g := newTestGateway(t)
		g.planPosts(c.plan)
		_, stderr := sluice(t, 1, append([]string{"send", "lobby", "hello", "--url", g.URL}, c.args...)...)
		for _, want := range c.want {
			if !strings.Contains(stderr, want) {
				t.Errorf("%+v: stderr %q lacks %q", c.plan, stderr, want)
			}
		}
		if strings.Count(stderr, "\n") != 1 || c.wantNot != "" && strings.Contains(stderr, c.wantNot) {
			t.Errorf("%+v: stderr %q, want one line without %q", c.plan, stderr, c.wantNot)
		}
		if n := len(g.seenPosts()); n != c.attempts {
			t.Errorf("%+v: %d attempts, want %d", c.plan, n, c.attempts)
		}
	}
}

func TestSendGivesUpAfterItsTimeout(t *testing.T) {
	t.Parallel() // it mostly waits
	_, stderr := sluice(t, 1, "send", "lobby", "hello", "--timeout=300ms", "--url", "http://127.0.0.1:1")
	if !strings.Contains(stderr, "nothing listens at 127.0.0.1:1") || !strings.Contains(stderr, "gave up") || strings.Contains(stderr, "--key") {
		t.Errorf("stderr %q, want that it gave up, and no talk of what may have been published", stderr)
	}
}

func TestSendDoesNotFollowARedirectThatLosesTheBody(t *testing.T) {
	g, other := newTestGateway(t), newTestGateway(t)
	g.planPosts(postPlan{status: http.StatusMovedPermanently, location: other.URL + "/rooms/lobby/events"})
	_, stderr := sluice(t, 1, "send", "lobby", "hello", "--url", g.URL)
	if !strings.Contains(stderr, "use --url "+other.URL) || len(g.seenPosts()) != 1 {
		t.Errorf("stderr %q after %d attempts, want one that names %s", stderr, len(g.seenPosts()), other.URL)
	}
	g.planPosts(postPlan{status: http.StatusPermanentRedirect, location: other.URL + "/rooms/lobby/events"})
	sluice(t, 0, "send", "lobby", "hello", "--url", g.URL)
	if got := texts(t, other, "lobby"); !slices.Equal(got, []string{"hello"}) {
		t.Errorf("a redirect that keeps the body published %q", got)
	}
}

func TestEphemeralEventsAreNotRepeatedOnceTheyMayHaveArrived(t *testing.T) {
	t.Parallel() // it mostly waits
	g := newTestGateway(t)
	g.planPosts(postPlan{status: 503}, postPlan{lose: true})
	_, stderr := sluice(t, 1, "send", "lobby", "hello", "--ephemeral", "--url", g.URL)
	if got := texts(t, g, "lobby"); !slices.Equal(got, []string{"hello"}) || !strings.Contains(stderr, "not known whether it was published") {
		t.Errorf("published %q, stderr %q", got, stderr)
	}
	stdout, _ := sluice(t, 0, "send", "lobby", "hello", "--ephemeral", "--print-id", "--url", g.URL)
	if posts := g.seenPosts(); stdout != "" || posts[2].key != "" || posts[2].query["ephemeral"][0] != "true" {
		t.Errorf("stdout %q, posted as %+v", stdout, posts[2])
	}
}

func TestLinesBecomeEventsInOrder(t *testing.T) {
	g := newTestGateway(t)
	var in, want strings.Builder
	for i := range 5000 {
		fmt.Fprintf(&in, "line %d <&>\r\n", i)
		fmt.Fprintf(&want, "line %d <&>\n", i)
	}
	in.WriteString("\n\tthe last, without an end \u2028")
	want.WriteString("\n\tthe last, without an end \u2028\n")
	p := start(t, strings.NewReader(in.String()), nil, "send", "lobby", "--print-id", "--type=log", "--url", g.URL)
	p.wait(t, 0)
	if got := strings.Join(texts(t, g, "lobby"), "\n") + "\n"; got != want.String() {
		t.Errorf("published %d bytes, want %d", len(got), want.Len())
	}
	ids := strings.Fields(p.out.String())
	if len(ids) != 5002 || ids[0] != "e1-1" || ids[5001] != "e1-5002" {
		t.Errorf("printed %d ids, want e1-1 to e1-5002", len(ids))
	}
	if n := len(g.seenPosts()); n > 50 {
		t.Errorf("%d POSTs for 5002 lines", n)
	}
	if kind := g.events("lobby")[0].kind; kind != "log" {
		t.Errorf("type %q, want log", kind)
	}
}

func TestBatchesStayBelowAMebibyte(t *testing.T) {
	g := newTestGateway(t)
	line := strings.Repeat("\x01", 60<<10) // six times as long in JSON
	var in strings.Builder
	for range 7 {
		in.WriteString(line + "\n")
	}
	start(t, strings.NewReader(in.String()), nil, "send", "lobby", "--url", g.URL).wait(t, 0)
	if got := texts(t, g, "lobby"); len(got) != 7 || slices.ContainsFunc(got, func(s string) bool { return s != line }) {
		t.Errorf("published %d lines, want 7 as they were", len(got))
	}
}

func TestJSONLinesArePublishedAsTheyAre(t *testing.T) {
	g := newTestGateway(t)
	in := "{\"n\":1.0}\n\n  \n[1,2]\n\"text\"\n"
	start(t, strings.NewReader(in), nil, "send", "lobby", "--json-lines", "--url", g.URL).wait(t, 0)
	var got []string
	for _, e := range g.events("lobby") {
		got = append(got, string(e.data))
	}
	if want := []string{`{"n":1.0}`, `[1,2]`, `"text"`}; !slices.Equal(got, want) {
		t.Errorf("published %q, want %q", got, want)
	}
}

func TestSendFlushesWhenTheInputPauses(t *testing.T) {
	g := newTestGateway(t)
	in, line := io.Pipe()
	p := start(t, in, nil, "send", "lobby", "-", "--url", g.URL)
	for i := range 3 {
		fmt.Fprintf(line, "line %d\n", i)
		g.await(t, "event of a line although the input stays open", func() bool { return len(g.rooms["lobby"]) == i+1 })
	}
	line.Close()
	p.wait(t, 0)
}

func TestSameInputWithTheSameKeyAddsOnlyWhatWasMissing(t *testing.T) {
	g := newTestGateway(t)
	send := func(code int, lines ...string) {
		t.Helper()
		in := strings.NewReader(strings.Join(lines, "\n") + "\n")
		start(t, in, nil, "send", "lobby", "-", "--key=run", "--url", g.URL).wait(t, code)
	}
	send(0, "a", "b")
	send(0, "a", "b", "c", "d")
	if got := texts(t, g, "lobby"); !slices.Equal(got, []string{"a", "b", "c", "d"}) {
		t.Errorf("published %q, want each line once", got)
	}
}

func TestABadLineEndsTheRunBehindTheGoodOnes(t *testing.T) {
	failing := io.MultiReader(strings.NewReader("a\nb\n"), iotest.ErrReader(errors.New("disk on fire")))
	for name, c := range map[string]struct {
		in   io.Reader
		args []string
		want string
	}{
		"not UTF-8":  {strings.NewReader("a\nb\n\xff\nc\n"), nil, "line 3 is not UTF-8"},
		"not JSON":   {strings.NewReader("\"a\"\n\"b\"\n{\n"), []string{"--json-lines"}, "line 3 is not JSON"},
		"too long":   {strings.NewReader("a\nb\n" + strings.Repeat("x", 2<<20)), nil, "line 3 is longer than 1MiB"},
		"too long 2": {strings.NewReader("a\nb\n" + strings.Repeat("\x01", 1<<19) + "\n"), nil, "line 3 is longer than 1MiB"},
		"unreadable": {failing, nil, "line 3: disk on fire"},
	} {
		g := newTestGateway(t)
		p := start(t, c.in, nil, append([]string{"send", "lobby", "--key=k", "--url", g.URL}, c.args...)...)
		p.wait(t, 1)
		stderr := p.err.String()
		if got := texts(t, g, "lobby"); !slices.Equal(got, []string{"a", "b"}) {
			t.Errorf("%s: published %q, want the lines before", name, got)
		}
		if !strings.Contains(stderr, c.want) || !strings.Contains(stderr, "2 lines were sent before; send the same again with --key k") || strings.Count(stderr, "\n") != 1 {
			t.Errorf("%s: stderr %q, want one line with %q and how to go on", name, stderr, c.want)
		}
	}
}

func TestARefusedBatchSaysWhichLinesItHeld(t *testing.T) {
	g := newTestGateway(t)
	g.planPosts(postPlan{status: 413, detail: "line 2 is too large"})
	p := start(t, strings.NewReader("a\nb\nc\n"), nil, "send", "lobby", "--url", g.URL)
	p.wait(t, 1)
	if want := "lines 1 to 3: the gateway answered 413: line 2 is too large"; !strings.Contains(p.err.String(), want) {
		t.Errorf("stderr %q lacks %q", p.err, want)
	}
}

func TestInterruptedSendSaysHowFarItCame(t *testing.T) {
	g := newTestGateway(t)
	in, line := io.Pipe()
	defer line.Close()
	p := start(t, in, nil, "send", "lobby", "-", "--key=k", "--print-id", "--url", g.URL)
	fmt.Fprint(line, "a\n")
	p.out.await(t, "e1-1")
	p.stop()
	p.wait(t, 1)
	if want := "interrupted; 1 lines were sent before; send the same again with --key k"; !strings.Contains(p.err.String(), want) {
		t.Errorf("stderr %q lacks %q", p.err, want)
	}
}

func TestSendTakesNoForeignAnswerForAnAcknowledgement(t *testing.T) {
	g := newTestGateway(t)
	g.planPosts(postPlan{status: http.StatusOK, detail: "welcome to the hotel's network"})
	_, stderr := sluice(t, 1, "send", "lobby", "hello", "--url", g.URL)
	if !strings.Contains(stderr, "not a gateway") {
		t.Errorf("stderr %q", stderr)
	}
}

func TestProgressShowsOnTerminalsAndNotBeforeItMatters(t *testing.T) {
	var out bytes.Buffer
	begun := time.Date(2026, 11, 21, 20, 0, 0, 0, time.UTC)
	for _, on := range []bool{false, true} {
		p := newProgress(&out, on, begun)
		p.update(10, begun.Add(100*time.Millisecond))
		if out.Len() > 0 {
			t.Fatalf("shown %q at once", &out)
		}
		p.update(1000, begun.Add(time.Second))
		p.update(1001, begun.Add(time.Second+time.Millisecond))
		p.end(4000, begun.Add(2*time.Second))
	}
	if got, want := out.String(), "\r\x1b[K1000 lines sent, 1000 a second\r\x1b[K4000 lines sent, 2000 a second\n"; got != want {
		t.Errorf("shown %q, want %q", got, want)
	}
}
