package main

import (
	"context"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/chromedp/chromedp"
)

// harbourRooms are the rooms of the traffic that the dashboard shows: how many
// listen, how many events come in a second on average, and what they are.
var harbourRooms = []struct {
	name    string
	streams int
	rate    float64
	data    string
}{
	{"tides:east", 14, 22, `{"level":2.41,"trend":"falling"}`},
	{"tides:west", 9, 15, `{"level":1.87,"trend":"falling"}`},
	{"harbour", 23, 3, "The school boats are through."},
	{"deploys", 31, 0.4, `{"app":"shop","version":"1.4.2"}`},
	{"orders:north", 6, 8, `{"order":1042,"state":"paid"}`},
	{"orders:south", 5, 6, `{"order":977,"state":"packed"}`},
	{"footbridge", 12, 1, "closed for three minutes"},
	{"lobby", 17, 0.7, "good morning"},
	{"weather", 8, 0.2, "wind SW 4, visibility good"},
}

// dashboardTime is how long the dashboard watches before its pictures: its
// charts show a minute.
const dashboardTime = 75 * time.Second

// runDashboard takes the dashboard over two nodes.
func runDashboard(ctx context.Context, out string) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Minute)
	defer cancel()
	if err := os.MkdirAll(out, 0o755); err != nil {
		return err
	}
	redis, stopRedis, err := startRedis(ctx)
	if err != nil {
		return err
	}
	defer stopRedis()
	var hosts []string
	for i := range 2 {
		host, stop, err := startGateway(ctx, "--redis", redis, "--node-name", fmt.Sprintf("harbour-%d", i+1))
		if err != nil {
			return err
		}
		defer stop()
		hosts = append(hosts, host)
	}
	browser, stopBrowser, err := startBrowser(ctx, hosts[0])
	if err != nil {
		return err
	}
	defer stopBrowser()
	traffic, stopTraffic := context.WithCancel(ctx)
	var tasks sync.WaitGroup
	defer tasks.Wait()
	defer stopTraffic()
	makeTraffic(traffic, &tasks, hosts)
	return dashboardShots(browser, out)
}

// startRedis runs a Redis that keeps nothing, and gives its URL.
func startRedis(ctx context.Context) (where string, stop func(), err error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", nil, err
	}
	port := strconv.Itoa(ln.Addr().(*net.TCPAddr).Port)
	if err := ln.Close(); err != nil {
		return "", nil, err
	}
	cmd := exec.CommandContext(ctx, "redis-server", "--bind", "127.0.0.1", "--port", port, "--save", "", "--appendonly", "no", "--dir", os.TempDir())
	if err := cmd.Start(); err != nil {
		return "", nil, fmt.Errorf("starting Redis: %w", err)
	}
	return "redis://127.0.0.1:" + port, func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait() // it was killed
	}, nil
}

// makeTraffic has people listen and programs publish until ctx ends.
func makeTraffic(ctx context.Context, tasks *sync.WaitGroup, hosts []string) {
	for r, room := range harbourRooms {
		for i := range room.streams {
			url := fmt.Sprintf("http://%s/rooms/%s/events?presence=%s-%d", hosts[(i*5+r)%3%2], room.name, "guest", i)
			tasks.Go(func() { read(ctx, url) })
		}
		tasks.Go(func() { tell(ctx, r, room.rate, "http://"+hosts[r%2]+"/rooms/"+room.name+"/events", room.data) })
	}
}

// read takes what a stream brings.
func read(ctx context.Context, url string) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		return
	}
	defer resp.Body.Close()
	_, _ = io.Copy(io.Discard, resp.Body)
}

// tell publishes about so many events a second, more and fewer by turns.
func tell(ctx context.Context, turn int, rate float64, url, data string) {
	begun := time.Now()
	kind := "text/plain"
	if strings.HasPrefix(data, "{") {
		kind = "application/json"
	}
	for ctx.Err() == nil {
		swing := 1 + 0.45*math.Sin(time.Since(begun).Seconds()/9+float64(turn)) + 0.25*math.Sin(time.Since(begun).Seconds()/2.3+float64(2*turn))
		select {
		case <-ctx.Done():
			return
		case <-time.After(time.Duration(float64(time.Second) / rate / swing)):
		}
		r, err := http.NewRequestWithContext(ctx, http.MethodPost, url, strings.NewReader(data))
		if err != nil {
			return
		}
		r.Header.Set("Content-Type", kind)
		if resp, err := http.DefaultClient.Do(r); err == nil {
			_, _ = io.Copy(io.Discard, resp.Body)
			_ = resp.Body.Close()
		}
	}
}

// dashboardShots opens the dashboard once, lets it watch, and takes it as each
// device shows it, so that all pictures have a whole minute in their charts.
func dashboardShots(browser context.Context, out string) error {
	tab, closeTab := chromedp.NewContext(browser)
	defer closeTab()
	first := shot{width: 1440, height: 900, scale: 2}
	if err := first.lookAt(tab, "http://"+shown+"/dashboard?minutes=1", "[data-testid=state][data-state=live]"); err != nil {
		return err
	}
	select {
	case <-time.After(dashboardTime):
	case <-browser.Done():
		return browser.Err()
	}
	for _, s := range []shot{
		{name: "dashboard-light", width: 1440, height: 900, scale: 2},
		{name: "dashboard-dark", width: 1440, height: 900, scale: 2, dark: true},
		{name: "dashboard-phone-light", width: 390, height: 844, scale: 2, phone: true},
		{name: "dashboard-phone-dark", width: 390, height: 844, scale: 2, phone: true, dark: true},
	} {
		if err := s.takeDashboard(tab, filepath.Join(out, s.name+".png"), ""); err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
	}
	room := shot{width: 1440, height: 900, scale: 2}
	return room.takeDashboard(tab, filepath.Join(out, "dashboard-room.png"), "tides:east")
}

// takeDashboard writes the picture of the dashboard as it is now, or with a room open.
func (s *shot) takeDashboard(tab context.Context, name, room string) error {
	if err := s.emulate(tab); err != nil {
		return err
	}
	if room != "" {
		if err := chromedp.Do(tab,
			chromedp.Click(chromedp.CSS(`[data-testid=room][data-room="`+room+`"] button`)),
			chromedp.WaitVisible(chromedp.CSS(`[data-testid=room-state][data-state=live]`)),
		); err != nil {
			return err
		}
	}
	// Two beats, so that the charts are drawn in their new size.
	select {
	case <-time.After(2500 * time.Millisecond):
	case <-tab.Done():
		return tab.Err()
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
