// Command screenshots takes the pictures in docs/images, so that they show the
// page as it is. Run it from the project's root whenever the page has changed:
//
//	go run ./docs/screenshots
//
// It builds the gateway and runs it on a free port, has several people hold a
// conversation in a room (chat.go, talk.go), and takes the page of one of them on
// a phone and on a desktop, light and dark. The dashboard is taken over two nodes
// with some traffic (dashboard.go), which needs redis-server and takes longer.
// Chromium or Chrome is needed for all of it, and nothing is left but pictures.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/url"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

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

// shown is the address that the page has in the pictures: the one of a gateway
// that was started with no flags. The browser is led to the real one.
const shown = "127.0.0.1:8080"

func run(ctx context.Context, out string) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Minute)
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
	if err := takeChat(browser, gateway, out); err != nil {
		return fmt.Errorf("the chat: %w", err)
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
