// Command screenshots takes the pictures in docs/images, so that they show the
// page as it is. Run it from the project's root whenever the page has changed:
//
//	go run ./docs/screenshots
//
// It builds the gateway and runs it on a free port, holds a conversation in a
// room (talk.go), most of it posted as by curl, and what the reader of the page
// says typed into the page; then it takes the page on a phone and on a desktop,
// light and dark. The dashboard is taken over two nodes with some traffic
// (dashboard.go), which needs redis-server and takes longer. Chromium or Chrome
// is needed for all of it, and nothing is left but pictures.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/chromedp"
)

func main() {
	out := flag.String("out", filepath.Join("docs", "images"), "folder for the pictures")
	only := flag.String("only", "", "take the pictures of one page: chat or dashboard")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	for _, page := range []struct {
		name string
		take func(context.Context, string) error
	}{{"chat", run}, {"dashboard", runDashboard}} {
		if *only != "" && *only != page.name {
			continue
		}
		if err := page.take(ctx, *out); err != nil {
			fmt.Fprintln(os.Stderr, "screenshots:", err)
			os.Exit(1)
		}
	}
}

// shot is one picture: a file of this name, and what the page is looked at with.
type shot struct {
	name          string
	width, height int64
	scale         float64
	phone, dark   bool
}

var shots = []shot{
	{name: "desktop-light", width: 1200, height: 812, scale: 2},
	{name: "desktop-dark", width: 1200, height: 812, scale: 2, dark: true},
	{name: "phone-light", width: 390, height: 774, scale: 2, phone: true},
	{name: "phone-dark", width: 390, height: 774, scale: 2, phone: true, dark: true},
}

// shown is the address that the page has in the pictures: the one of a gateway
// that was started with no flags. The browser is led to the real one.
const shown = "127.0.0.1:8080"

func run(ctx context.Context, out string) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	if err := os.MkdirAll(out, 0o755); err != nil {
		return err
	}
	gateway, stop, err := startGateway(ctx)
	if err != nil {
		return err
	}
	defer stop()
	browser, stopBrowser, err := startBrowser(ctx, gateway)
	if err != nil {
		return err
	}
	defer stopBrowser()
	if err := hold(browser, gateway); err != nil {
		return fmt.Errorf("holding the conversation: %w", err)
	}
	for _, s := range shots {
		if err := s.take(browser, filepath.Join(out, s.name+".png")); err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
	}
	return nil
}

// startGateway builds the gateway and runs it with some more flags, and gives its address.
func startGateway(ctx context.Context, flags ...string) (host string, stop func(), err error) {
	dir, err := os.MkdirTemp("", "sluice-screenshots-")
	if err != nil {
		return "", nil, err
	}
	defer os.RemoveAll(dir)
	program := filepath.Join(dir, "sluice")
	if text, err := exec.CommandContext(ctx, "go", "build", "-o", program, "sluice/cmd/sluice").CombinedOutput(); err != nil {
		return "", nil, fmt.Errorf("building the gateway: %w\n%s", err, text)
	}
	args := append([]string{"serve", "--listen", "127.0.0.1:0", "--admin", "", "--drain", "1s", "--log-format", "json"}, flags...)
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = 5 * time.Second
	stderr, err := cmd.StderrPipe()
	if err != nil {
		return "", nil, err
	}
	if err := cmd.Start(); err != nil {
		return "", nil, fmt.Errorf("starting the gateway: %w", err)
	}
	read := make(chan struct{})
	end := func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		<-read
		_ = cmd.Wait() // it has been told to end; how it did says nothing
	}
	lines := bufio.NewScanner(stderr)
	host = address(lines)
	go func() {
		defer close(read)
		_, _ = io.Copy(io.Discard, stderr)
	}()
	if host == "" {
		end()
		return "", nil, errors.New("the gateway did not say where it serves")
	}
	return host, end, nil
}

// address waits for the line of the log in which the gateway says where it is.
func address(lines *bufio.Scanner) string {
	for lines.Scan() {
		var line struct{ Msg, URL string }
		if json.Unmarshal(lines.Bytes(), &line) != nil || line.Msg != "serving" {
			continue
		}
		if u, err := url.Parse(line.URL); err == nil {
			return u.Host
		}
	}
	return ""
}

// startBrowser runs a browser with a profile of its own.
func startBrowser(ctx context.Context, gateway string) (context.Context, func(), error) {
	options := append(chromedp.DefaultExecAllocatorOptions[:],
		chromedp.Flag("host-resolver-rules", "MAP "+shown+" "+gateway),
		chromedp.Flag("font-render-hinting", "none"),
	)
	if os.Geteuid() == 0 {
		options = append(options, chromedp.NoSandbox) // Chromium refuses root otherwise
	}
	allocator, stopAllocator := chromedp.NewExecAllocator(ctx, options...)
	browser, stopBrowser := chromedp.NewContext(allocator)
	stop := func() {
		_ = chromedp.Cancel(browser) // waits until it has ended
		stopBrowser()
		stopAllocator()
	}
	if err := chromedp.Do(browser); err != nil {
		stop()
		return nil, nil, fmt.Errorf("starting the browser: %w", err)
	}
	return browser, stop, nil
}

// hold has everybody say their lines, in order.
func hold(browser context.Context, gateway string) error {
	tab, closeTab := chromedp.NewContext(browser)
	defer closeTab()
	if err := (&shot{width: 1200, height: 800, scale: 1}).open(tab); err != nil {
		return err
	}
	for i, l := range talk {
		var err error
		if l.name == me {
			err = chromedp.Do(tab, chromedp.SendKeys(chromedp.CSS(`[data-testid=composer]`), l.text+"\n"))
		} else {
			err = post(tab, gateway, l)
		}
		if err == nil {
			err = arrived(tab, i+1)
		}
		if err != nil {
			return fmt.Errorf("line %d: %w", i+1, err)
		}
	}
	return nil
}

// arrived waits until the page shows n messages that the gateway has.
func arrived(tab context.Context, n int) error {
	const there = `document.querySelectorAll('.message[data-id]:not([data-id=""], [data-state])').length >= %d`
	_, err := chromedp.Run(tab, chromedp.Poll[bool](fmt.Sprintf(there, n)))
	return err
}

// post publishes a line as curl would.
func post(ctx context.Context, gateway string, l line) error {
	body, kind := l.text, "text/plain; charset=utf-8"
	switch {
	case l.name != "":
		b, err := json.Marshal(map[string]string{"name": l.name, "text": l.text})
		if err != nil {
			return err
		}
		body, kind = string(b), "application/json"
	case l.json:
		kind = "application/json"
	}
	target := url.URL{Scheme: "http", Host: gateway, Path: "/rooms/" + room + "/events"}
	if l.kind != "" {
		target.RawQuery = url.Values{"type": {l.kind}}.Encode()
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, target.String(), strings.NewReader(body))
	if err != nil {
		return err
	}
	r.Header.Set("Content-Type", kind)
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusCreated {
		return fmt.Errorf("the gateway answered %s", resp.Status)
	}
	return nil
}

// open brings up the page, live, as the shot's device shows it.
func (s *shot) open(tab context.Context) error {
	return s.lookAt(tab, "http://"+shown+"/?room="+room, `[data-testid=state][data-state=live]`)
}

// lookAt brings up a page as the shot's device shows it, and waits for an element.
func (s *shot) lookAt(tab context.Context, url, element string) error {
	if err := s.emulate(tab); err != nil {
		return err
	}
	if _, err := chromedp.Call(tab, emulation.SetTimezoneOverride, emulation.SetTimezoneOverrideParams{TimezoneID: clock()}); err != nil {
		return err
	}
	if _, err := chromedp.Call(tab, emulation.SetLocaleOverride, emulation.SetLocaleOverrideParams{Locale: "en-GB"}); err != nil {
		return err
	}
	memory := page.AddScriptToEvaluateOnNewDocumentParams{Source: remembered}
	if _, err := chromedp.Call(tab, page.AddScriptToEvaluateOnNewDocument, memory); err != nil {
		return err
	}
	return chromedp.Do(tab, chromedp.Navigate(url), chromedp.WaitVisible(chromedp.CSS(element)))
}

// emulate makes the tab the shot's device.
func (s *shot) emulate(tab context.Context) error {
	viewport := []chromedp.EmulateViewportOption{chromedp.EmulateScale(s.scale)}
	if s.phone {
		viewport = append(viewport, chromedp.EmulateMobile, chromedp.EmulateTouch, chromedp.EmulatePortrait)
	}
	media := emulation.SetEmulatedMediaParams{Features: []*emulation.MediaFeature{
		{Name: "prefers-color-scheme", Value: "light"},
		{Name: "prefers-reduced-motion", Value: "reduce"},
	}}
	if s.dark {
		media.Features[0].Value = "dark"
	}
	if err := chromedp.Do(tab, chromedp.EmulateViewport(s.width, s.height, viewport...)); err != nil {
		return err
	}
	_, err := chromedp.Call(tab, emulation.SetEmulatedMedia, media)
	return err
}

// clock is a time zone in which it is past ten in the morning now.
func clock() string {
	ahead := (10-time.Now().UTC().Hour()+36)%24 - 12
	return fmt.Sprintf("Etc/GMT%+d", -ahead) // their signs are the other way round
}

// take writes the picture of a page that shows the whole conversation.
func (s *shot) take(browser context.Context, name string) error {
	tab, closeTab := chromedp.NewContext(browser)
	defer closeTab()
	if err := s.open(tab); err != nil {
		return err
	}
	if err := arrived(tab, len(talk)); err != nil {
		return err
	}
	// Without the cursor in the field, which blinks.
	if _, err := chromedp.Run(tab, chromedp.Evaluate[bool](`document.activeElement?.blur(), true`)); err != nil {
		return err
	}
	picture, err := chromedp.Run(tab, chromedp.CaptureScreenshot())
	if err != nil {
		return err
	}
	if err := os.WriteFile(name, picture, 0o644); err != nil {
		return err
	}
	fmt.Println(name)
	return nil
}
