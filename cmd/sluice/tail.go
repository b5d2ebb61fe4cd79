package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// tailCmd is `sluice tail`: it shows each event of some rooms once, in order, for as long
// as it runs, over cuts, restarts and deploys of the gateway.
//
// An event counts as handled when it is printed, or when the command of --exec has succeeded;
// only then does the cursor move, and with it the file of --state. So whoever goes on from
// there misses nothing, and repeats at most the one event that was under way.
type tailCmd struct {
	gatewayFlags `embed:""`

	Rooms []string `arg:"" name:"room" help:"Rooms to read."`

	After     string   `help:"Begin behind this cursor; earliest: with what the gateway has kept; latest: with what is to come." xor:"begin" placeholder:"CURSOR"`
	Last      uint     `help:"Begin with the last N events." xor:"begin" placeholder:"N"`
	Types     []string `help:"Only events of these types." placeholder:"TYPE"`
	JSON      bool     `name:"json" help:"Print one JSON envelope a line, exactly as it came; gaps too." xor:"output"`
	Exec      string   `help:"Instead of printing, run CMD by the shell for each event, one after the other: the envelope on its stdin, SLUICE_ROOM, SLUICE_TYPE, SLUICE_ID and SLUICE_FROM in its environment." xor:"output" placeholder:"CMD"`
	KeepGoing bool     `help:"Go on with the next event when CMD fails."`
	State     string   `help:"Keep the cursor in this file and begin there the next time; --after and --last then count for the first time only." type:"path" placeholder:"FILE"`
	Verbose   bool     `short:"v" help:"Tell of everything the gateway says besides events, and of every reconnect."`
}

// Run reads until ctx ends or the gateway has nothing more.
func (c *tailCmd) Run(ctx context.Context, p *process) error {
	slices.Sort(c.Rooms)
	c.Rooms = slices.Compact(c.Rooms)
	if slices.Contains(c.Rooms, "") {
		return usagef("a room has a name; an empty one was given")
	}
	if c.KeepGoing && c.Exec == "" {
		return usagef("--keep-going is about --exec, which was not given")
	}
	gw, err := c.open()
	if err != nil {
		return err
	}
	defer gw.close()
	t := &tail{cmd: c, process: p, colour: isTerminal(p.stdout) && p.getenv("NO_COLOR") == ""}
	cursor, err := t.restore()
	if err != nil {
		return err
	}
	t.follower = follower{
		gw:     gw,
		target: func(cursor string) *url.URL { return c.target(gw, cursor) },
		handle: func(e streamEvent) error { return t.handle(ctx, e) },
		lost:   t.lost,
		cursor: cursor,
	}
	return t.follower.run(ctx)
}

// target is the address of the stream. The cursor also travels in a header, but some proxies drop that.
func (c *tailCmd) target(gw *gateway, cursor string) *url.URL {
	q := url.Values{"envelope": {"true"}}
	if len(c.Types) > 0 {
		q.Set("types", strings.Join(c.Types, ","))
	}
	switch {
	case cursor != "":
		q.Set("after", cursor)
	case c.After != "":
		q.Set("after", c.After)
	case c.Last > 0:
		q.Set("last", strconv.FormatUint(uint64(c.Last), 10))
	}
	if len(c.Rooms) == 1 {
		return gw.at(q, "rooms", c.Rooms[0], "events")
	}
	q["room"] = c.Rooms
	return gw.at(q, "events")
}

// tail is one run of tailCmd. Only the goroutine that runs it touches it.
type tail struct {
	cmd      *tailCmd
	process  *process
	colour   bool
	follower follower
	troubled bool // the last stream did not end in peace
}

// envelope is an event as far as tail looks into it.
type envelope struct {
	ID   string          `json:"id"`
	Room string          `json:"room"`
	Type string          `json:"type"`
	From string          `json:"from"`
	At   time.Time       `json:"at"`
	Data json.RawMessage `json:"data"`
}

func (t *tail) handle(ctx context.Context, e streamEvent) error {
	if err := t.show(ctx, e); err != nil {
		return err
	}
	if e.cursor == t.follower.cursor {
		return nil
	}
	return t.save(e.cursor)
}

func (t *tail) show(ctx context.Context, e streamEvent) error {
	switch {
	case e.name == "sluice.open" && t.troubled:
		t.process.notef("connected again")
		t.troubled = false
	case e.name == "sluice.gap":
		return t.gap(e)
	}
	if strings.HasPrefix(e.name, "sluice.") {
		if t.cmd.Verbose && e.name != "sluice.beat" {
			t.process.notef("%s %s", e.name, e.data)
		}
		return nil
	}
	if len(e.data) == 0 {
		return nil // every event of a room has an envelope, so this is none
	}
	var v envelope
	if err := json.Unmarshal(e.data, &v); err != nil {
		return fmt.Errorf("the gateway sent an event that is no envelope: %w", err)
	}
	switch {
	case t.cmd.Exec != "":
		return t.exec(ctx, v, e.data)
	case t.cmd.JSON:
		return t.printJSON(e.data)
	}
	_, err := io.WriteString(t.process.stdout, humanLine(v, t.colour))
	return err
}

// gap reports that events are missing, which must never pass unseen.
func (t *tail) gap(e streamEvent) error {
	var v struct {
		Room, After, Reason string
		Missed              *int64
	}
	_ = json.Unmarshal(e.data, &v) // a gap that cannot be read is reported all the same
	missed := "events are missing"
	if v.Missed != nil {
		missed = fmt.Sprintf("%d events are missing", *v.Missed)
	}
	t.process.notef("gap in %s: %s behind %q (%s)", v.Room, missed, clip(v.After, 100), v.Reason)
	if !t.cmd.JSON {
		return nil
	}
	line, err := json.Marshal(struct {
		ID   string          `json:"id,omitempty"`
		Room string          `json:"room"`
		Type string          `json:"type"`
		Data json.RawMessage `json:"data"`
	}{e.cursor, v.Room, e.name, e.data})
	if err != nil {
		return fmt.Errorf("the gateway sent a gap that is not JSON: %w", err)
	}
	return t.printJSON(line)
}

// printJSON prints an envelope as it is, in one write, so that a line is never half there.
func (t *tail) printJSON(v []byte) error {
	var line bytes.Buffer
	line.Grow(len(v) + 1)
	if bytes.ContainsAny(v, "\n\r") {
		if err := json.Compact(&line, v); err != nil {
			return err
		}
	} else {
		line.Write(v)
	}
	line.WriteByte('\n')
	_, err := t.process.stdout.Write(line.Bytes())
	return err
}

// humanLine is an event for a person's eyes: text is unquoted, and nothing in it can
// play tricks on the terminal.
func humanLine(v envelope, colour bool) string {
	paint := func(code, s string) string {
		if !colour || s == "" {
			return s
		}
		return "\x1b[" + code + "m" + s + "\x1b[0m"
	}
	var text string
	if json.Unmarshal(v.Data, &text) != nil {
		text = string(v.Data)
	}
	from := ""
	if v.From != "" {
		from = " " + paint("1", printable(v.From))
	}
	return fmt.Sprintf("%s %s %s%s: %s\n",
		paint("2", v.At.Local().Format(time.TimeOnly)),
		paint("36", printable(v.Room)),
		paint("33", printable(v.Type)),
		from, printable(text))
}

// exec runs the command of --exec for one event and waits for it. A signal to tail does
// not end the command: a half-done piece of work helps nobody, and the terminal tells it anyway.
func (t *tail) exec(ctx context.Context, v envelope, raw []byte) error {
	cmd := exec.Command("sh", "-c", t.cmd.Exec)
	cmd.Stdin = bytes.NewReader(append(raw[:len(raw):len(raw)], '\n'))
	cmd.Stdout, cmd.Stderr = t.process.stdout, t.process.stderr
	cmd.Env = append(os.Environ(),
		"SLUICE_ROOM="+withoutNUL(v.Room), "SLUICE_TYPE="+withoutNUL(v.Type),
		"SLUICE_ID="+withoutNUL(v.ID), "SLUICE_FROM="+withoutNUL(v.From))
	// What the command left running in the background may keep its output, but not us.
	cmd.WaitDelay = time.Second
	err := cmd.Run()
	if err == nil || errors.Is(err, exec.ErrWaitDelay) {
		return nil
	}
	err = fmt.Errorf("the command failed for event %s: %w", cmp.Or(v.ID, "(without id)"), err)
	switch {
	case ctx.Err() != nil:
		t.process.notef("interrupted: %v; %s", err, t.whereToGoOn())
		return ctx.Err()
	case t.cmd.KeepGoing:
		t.process.notef("%v", err)
		return nil
	}
	return fmt.Errorf("%w; %s", err, t.whereToGoOn())
}

// withoutNUL: the system refuses a variable with a NUL, and with it the whole command.
func withoutNUL(s string) string { return strings.ReplaceAll(s, "\x00", "") }

func (t *tail) whereToGoOn() string {
	if t.cmd.State != "" {
		return "the next run with this --state begins with it"
	}
	return "go on with --after " + t.follower.cursor
}

// lost tells why a stream ended, unless that is the way of things: gateways end streams at
// some age, and at every deploy.
func (t *tail) lost(why error, wait time.Duration) {
	wait = wait.Round(time.Millisecond)
	if why != nil {
		t.troubled = true
		t.process.notef("%v; trying again in %v", t.follower.gw.plainly(why), wait)
		return
	}
	if t.cmd.Verbose {
		t.process.notef("the stream ended; going on in %v", wait)
	}
}

// state is what the file of --state holds. The rooms guard against a file of other rooms,
// whose cursor would lead anywhere.
type state struct {
	Rooms  []string `json:"rooms"`
	Cursor string   `json:"cursor"`
}

// restore answers the cursor of the last run, or nothing.
func (t *tail) restore() (string, error) {
	if t.cmd.State == "" {
		return "", nil
	}
	text, err := os.ReadFile(t.cmd.State)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("reading --state: %w", err)
	}
	var s state
	if err := json.Unmarshal(text, &s); err != nil || s.Cursor == "" {
		return "", fmt.Errorf("--state %s holds no state of sluice tail; remove it to begin anew", t.cmd.State)
	}
	if !slices.Equal(s.Rooms, t.cmd.Rooms) {
		return "", usagef("--state %s is of other rooms (%s); give these rooms a file of their own", t.cmd.State, strings.Join(s.Rooms, " "))
	}
	return s.Cursor, nil
}

// save replaces the file as a whole, so that a kill at any moment leaves the old one or the new one.
func (t *tail) save(cursor string) error {
	if t.cmd.State == "" {
		return nil
	}
	text, err := json.Marshal(state{Rooms: t.cmd.Rooms, Cursor: cursor})
	if err != nil {
		return err
	}
	next := filepath.Join(filepath.Dir(t.cmd.State), "."+filepath.Base(t.cmd.State)+".next")
	if err := os.WriteFile(next, append(text, '\n'), 0o600); err != nil {
		return fmt.Errorf("writing --state: %w", err)
	}
	if err := os.Rename(next, t.cmd.State); err != nil {
		return fmt.Errorf("writing --state: %w", err)
	}
	return nil
}
