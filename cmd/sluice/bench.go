package main

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"sluice/cmd/sluice/internal/bench"
)

// benchCmd is `sluice bench`: it measures a gateway, ours or another, and
// checks each delivery while it does. The work is done by internal/bench.
type benchCmd struct {
	gatewayFlags `embed:""`

	Streams    int           `help:"Streams to open." default:"100" placeholder:"N"`
	Rooms      int           `help:"Rooms; stream i is in room i modulo N." default:"1" placeholder:"N"`
	Publishers int           `help:"Publishers, each with one message under way at a time." default:"1" placeholder:"N"`
	Rate       float64       `help:"Messages a second, of all publishers together; 0: flat out." default:"50" placeholder:"N"`
	Window     int           `help:"Flat out: hold publishers back while this many messages have not been delivered to all; 0: never." default:"256" placeholder:"N"`
	Payload    size          `help:"Size of a message." default:"150" placeholder:"SIZE"`
	Duration   time.Duration `help:"How long to measure." default:"10s"`
	Warmup     time.Duration `help:"How long to publish before that." default:"1s"`
	Hold       bool          `help:"Only open the streams and hold them for --duration."`

	SubscribeTemplate string   `help:"URL of a stream, or its path below --url; {room} stands for the room." default:"/rooms/{room}/events" placeholder:"URL"`
	PublishTemplate   string   `help:"URL to publish to, likewise." default:"/rooms/{room}/events" placeholder:"URL"`
	Body              string   `help:"Body of a publication; {msg} stands for the message, which needs no escaping in JSON or a form." default:"{msg}" placeholder:"TEXT"`
	Header            []string `help:"Header of every request, as 'Name: value'; may be repeated." sep:"none" placeholder:"HEADER"`
	SubscribeHeader   []string `help:"Header of requests for streams." sep:"none" placeholder:"HEADER"`
	PublishHeader     []string `help:"Header of publications." sep:"none" placeholder:"HEADER"`
	RoomName          string   `help:"Rooms are called NAME-0, NAME-1 and so on; by default bench-<random>." placeholder:"NAME"`

	ConnectRate        float64       `help:"Streams to open a second; 0: no limit." default:"1000" placeholder:"N"`
	ConnectConcurrency int           `help:"Streams being opened at a time." default:"100" placeholder:"N"`
	Sources            int           `help:"Towards loopback: source addresses, from 127.0.1.1 on; 0: one for each 1000 streams." placeholder:"N"`
	Resume             bool          `help:"Reopen streams that end, with their last event id." default:"true" negatable:""`
	Grace              time.Duration `help:"How long silence must last at the end before what is missing is lost." default:"3s"`
	Insecure           bool          `help:"Do not check the gateway's certificate."`
	JSON               bool          `name:"json" help:"Print the result as one JSON object."`
}

// errBadVerdict ends a measurement that went well and found something bad.
var errBadVerdict = errors.New("the gateway did not pass; see the verdict")

// settle lets subscriptions take effect that a server answers for too early.
const settle = 500 * time.Millisecond

// Run measures once. It fails if anything was lost, doubled, reordered or
// corrupt, or if not all streams could be opened.
func (c *benchCmd) Run(ctx context.Context, p *process) error {
	conf, err := c.config()
	if err != nil {
		return err
	}
	conf.Warn = func(text string) { p.notef("%s", text) }
	line := &statusLine{w: p.stderr}
	if isTerminal(p.stderr) {
		conf.Progress = func(at bench.Progress) { line.show(progressText(at)) }
	}
	report, err := bench.Run(ctx, conf)
	line.clear()
	switch {
	case errors.Is(err, bench.ErrUsage):
		return usagef("%v", err)
	case err != nil:
		return err
	}
	if err := c.print(p.stdout, report); err != nil {
		return err
	}
	if !report.OK() {
		return errBadVerdict
	}
	return nil
}

func (c *benchCmd) print(w io.Writer, report *bench.Report) error {
	if !c.JSON {
		return report.WriteText(w)
	}
	return writeJSON(w, report)
}

// writeJSON prints v for people and programs alike.
func writeJSON(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	return e.Encode(v)
}

// config makes of the flags what internal/bench takes.
func (c *benchCmd) config() (bench.Config, error) {
	gw, err := c.open()
	if err != nil {
		return bench.Config{}, err
	}
	gw.close() // only its address and token are of use here
	conf := bench.Config{
		Subscribe: c.template(gw, c.SubscribeTemplate), Publish: c.template(gw, c.PublishTemplate),
		Body: c.Body, Room: c.RoomName,
		Streams: c.Streams, Rooms: c.Rooms, Publishers: c.Publishers,
		Rate: c.Rate, Payload: int(c.Payload), Window: c.Window,
		Warmup: c.Warmup, Duration: c.Duration, Settle: settle, Grace: c.Grace,
		ConnectRate: c.ConnectRate, Connecting: c.ConnectConcurrency,
		Sources: c.Sources, NoResume: !c.Resume,
	}
	if c.Hold {
		conf.Publish = ""
	}
	if c.Insecure {
		conf.TLS = &tls.Config{InsecureSkipVerify: true}
	}
	for _, n := range []struct {
		flag string
		got  int
	}{{"streams", c.Streams}, {"rooms", c.Rooms}, {"publishers", c.Publishers}, {"connect-concurrency", c.ConnectConcurrency}} {
		if n.got < 1 {
			return conf, usagef("--%s must be at least 1", n.flag)
		}
	}
	if c.Duration <= 0 {
		return conf, usagef("--duration must be above 0")
	}
	both, err := benchHeaders("header", c.Header)
	if err != nil {
		return conf, err
	}
	if gw.token != "" {
		both = append(both, bench.Header{Name: "Authorization", Value: "Bearer " + gw.token})
	}
	sub, err := benchHeaders("subscribe-header", c.SubscribeHeader)
	if err != nil {
		return conf, err
	}
	pub, err := benchHeaders("publish-header", c.PublishHeader)
	conf.SubscribeHeader, conf.PublishHeader = append(sub, both...), append(pub, both...)
	return conf, err
}

// template makes a whole URL of a template that may be a path below --url.
func (c *benchCmd) template(gw *gateway, template string) string {
	if strings.HasPrefix(template, "http://") || strings.HasPrefix(template, "https://") {
		return template
	}
	base := *gw.base
	base.RawQuery, base.Fragment = "", ""
	return strings.TrimSuffix(base.String(), "/") + "/" + strings.TrimPrefix(template, "/")
}

// benchHeaders reads headers as people write them.
func benchHeaders(flag string, lines []string) ([]bench.Header, error) {
	var headers []bench.Header
	for _, line := range lines {
		name, value, ok := strings.Cut(line, ":")
		value = strings.TrimSpace(value)
		bad := func(r rune) bool { return r <= ' ' || r >= 0x7f || strings.ContainsRune(`"(),/:;<=>?@[\]{}`, r) }
		if !ok || name == "" || strings.ContainsFunc(name, bad) || strings.ContainsAny(value, "\r\n\x00") {
			return nil, usagef("--%s %q is no header; write it as 'Name: value'", flag, line)
		}
		headers = append(headers, bench.Header{Name: name, Value: value})
	}
	return headers, nil
}

func progressText(at bench.Progress) string {
	text := fmt.Sprintf("%-10s  %d of %d streams open", at.Stage, at.Open, at.Streams)
	if at.Published > 0 {
		text += fmt.Sprintf("  %d published  %d delivered", at.Published, at.Delivered)
	}
	if at.Errors > 0 {
		text += fmt.Sprintf("  %d errors", at.Errors)
	}
	if at.Left > 0 {
		text += fmt.Sprintf("  %d s left", int(at.Left.Round(time.Second)/time.Second))
	}
	return text
}

// statusLine is one line on a terminal that is written over and over. One
// goroutine at a time may use it.
type statusLine struct {
	w     io.Writer
	shown bool
}

// show replaces the line.
func (l *statusLine) show(text string) {
	l.shown = true
	fmt.Fprintf(l.w, "\r\x1b[K%s", clip(text, 110))
}

// clear removes the line, so that something else can stand there.
func (l *statusLine) clear() {
	if l.shown {
		fmt.Fprint(l.w, "\r\x1b[K")
	}
	l.shown = false
}
