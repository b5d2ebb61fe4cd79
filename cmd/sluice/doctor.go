package main

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"time"

	"sluice/cmd/sluice/internal/doctor"
)

// doctorCmd is `sluice doctor`: it says what the way from here to a gateway
// does to a stream. The work is done by internal/doctor.
type doctorCmd struct {
	URL string `arg:"" name:"url" help:"The gateway, as clients know it."`

	Token    string        `help:"Token to present; it needs to subscribe and publish to doctor-*." placeholder:"JWT"`
	Proxy    string        `help:"Go through this proxy; by default HTTPS_PROXY, HTTP_PROXY and NO_PROXY say." placeholder:"URL"`
	Idle     time.Duration `help:"How long to hold silent streams, and to wait for anything at most." default:"120s"`
	Quick    bool          `help:"Leave out what takes longer than a few seconds: silent streams, silent polls."`
	Insecure bool          `help:"Do not check the gateway's certificate."`
	JSON     bool          `name:"json" help:"Print all findings as one JSON object."`
}

// errNotGood ends an examination that went well and found something bad.
var errNotGood = errors.New("the way to the gateway is not good; see the findings")

// Run examines the way. It fails unless that is good.
func (c *doctorCmd) Run(ctx context.Context, p *process) error {
	options, err := c.options()
	if err != nil {
		return err
	}
	line := &statusLine{w: p.stderr}
	if isTerminal(p.stderr) {
		options.Tell = func(at doctor.Progress) { line.show(doctorProgress(at)) }
	}
	if !c.JSON {
		options.Found = func(f doctor.Finding) {
			line.clear()
			fmt.Fprint(p.stdout, findingText(f))
		}
	}
	report, err := doctor.Run(ctx, options)
	line.clear()
	if c.JSON {
		if err := writeJSON(p.stdout, report); err != nil {
			return err
		}
	} else {
		fmt.Fprintln(p.stdout, printable(report.Summary()))
	}
	switch {
	case err != nil:
		return fmt.Errorf("interrupted: %w", err)
	case !report.Good:
		return errNotGood
	}
	return nil
}

// options checks the flags.
func (c *doctorCmd) options() (doctor.Options, error) {
	u, err := url.Parse(c.URL)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return doctor.Options{}, usagef("%q is not the address of a gateway; write it as https://events.example.com", c.URL)
	}
	gw, err := gatewayFlags{URL: c.URL, Token: c.Token}.open()
	if err != nil {
		return doctor.Options{}, err
	}
	gw.close() // only its address and token are of use here
	o := doctor.Options{URL: gw.base, Token: gw.token, Quick: c.Quick, Idle: c.Idle, Insecure: c.Insecure}
	if c.Idle <= 0 {
		return o, usagef("--idle must be above 0; to leave the test out, say --quick")
	}
	if c.Proxy == "" {
		return o, nil
	}
	o.Proxy, err = url.Parse(c.Proxy)
	if err != nil || o.Proxy.Host == "" || o.Proxy.Scheme != "http" && o.Proxy.Scheme != "https" && o.Proxy.Scheme != "socks5" {
		return o, usagef("--proxy %q is not the address of a proxy; write it as http://proxy.example.com:3128", c.Proxy)
	}
	return o, nil
}

// findingText is a finding for a terminal: what a stranger's headers hold
// cannot play tricks on it.
func findingText(f doctor.Finding) string {
	f.Seen, f.Means, f.Do = printable(f.Seen), printable(f.Means), printable(f.Do)
	return f.String()
}

func doctorProgress(at doctor.Progress) string {
	if at.Total == 0 {
		return at.Stage + " …"
	}
	return fmt.Sprintf("%s: %d of %d s …", at.Stage, int(at.Elapsed.Seconds()), int(at.Total.Seconds()))
}
