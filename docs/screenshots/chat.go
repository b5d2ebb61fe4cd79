package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/chromedp/cdproto/browser"
	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/chromedp"
)

// stage is a room with people in it.
type stage struct {
	chromium context.Context
	gateway  string
	mine     []context.Context // my page, once for each picture
	crew     map[string]context.Context
}

// takeChat has everybody say their lines, and takes my page.
func takeChat(chromium context.Context, gateway, out string) error {
	st := &stage{chromium: chromium, gateway: gateway, crew: map[string]context.Context{}}
	home, err := st.enter(chromium, me, nil)
	if err != nil {
		return err
	}
	for _, name := range crew[:len(crew)-1] {
		if st.crew[name], err = st.enter(chromium, name, nil); err != nil {
			return err
		}
	}
	for i := range shots {
		tab, err := st.enter(home, me, &shots[i])
		if err != nil {
			return err
		}
		st.mine = append(st.mine, tab)
	}
	if err := st.hold(); err != nil {
		return err
	}
	for i, tab := range st.mine {
		if err := st.write(tab); err != nil {
			return err
		}
		if err := shots[i].take(tab, out); err != nil {
			return fmt.Errorf("%s: %w", shots[i].name, err)
		}
	}
	return nil
}

// enter opens the room under a name: in a profile of its own, or, for one more
// of my pages, in that of the page that is there already.
func (st *stage) enter(parent context.Context, name string, s *shot) (context.Context, error) {
	var options []chromedp.ContextOption
	if parent == st.chromium {
		options = append(options, chromedp.WithNewBrowserContext())
	}
	tab, _ := chromedp.NewContext(parent, options...) // ends with the browser
	if s == nil {
		s = &shot{width: 1200, height: 800, scale: 1}
	}
	if err := s.emulate(tab); err != nil {
		return nil, err
	}
	memory := page.AddScriptToEvaluateOnNewDocumentParams{Source: remembered(name)}
	if _, err := chromedp.Call(tab, page.AddScriptToEvaluateOnNewDocument, memory); err != nil {
		return nil, err
	}
	if err := chromedp.Do(tab, chromedp.Navigate("http://"+shown+"/?room="+room)); err != nil {
		return nil, err
	}
	return tab, await(tab, `document.querySelector('[data-testid="person"]')`)
}

// remembered is what the browser of somebody who was here before has kept: the
// name, and the rooms that they were in.
func remembered(name string) string {
	return fmt.Sprintf(`
		if (location.protocol === 'http:') {
			sessionStorage.setItem('sluice.name', JSON.stringify(%q));
			localStorage.setItem('sluice.rooms', JSON.stringify(['%s', 'deploys', 'footbridge', 'lobby']));
		}`, name, room)
}

// hold has everybody say their lines, in order.
func (st *stage) hold() error {
	away := false
	for i, l := range talk {
		if l.name == crew[len(crew)-1] && st.crew[l.name] == nil {
			var err error
			if st.crew[l.name], err = st.enter(st.chromium, l.name, nil); err != nil {
				return err
			}
			if err := st.everywhere(`document.querySelector('[data-testid="coming"]:last-child')`); err != nil {
				return err
			}
		}
		if i == lookedAway {
			away = true
			if err := st.window(browser.WindowStateMinimized); err != nil {
				return err
			}
		}
		if err := st.say(l); err != nil {
			return fmt.Errorf("line %d: %w", i+1, err)
		}
		if err := st.everywhere(fmt.Sprintf(`document.querySelectorAll('.message[data-id]:not([data-state])').length >= %d`, i+1)); err != nil {
			return fmt.Errorf("line %d: %w", i+1, err)
		}
	}
	if away {
		return st.window(browser.WindowStateNormal)
	}
	return nil
}

func (st *stage) say(l line) error {
	tab := st.crew[l.name]
	switch l.name {
	case "":
		return post(st.chromium, st.gateway, l)
	case me:
		tab = st.mine[0]
	}
	return chromedp.Do(tab,
		chromedp.SendKeys(chromedp.CSS(`[data-testid=composer]`), l.text),
		chromedp.Click(chromedp.CSS(`[data-testid=send]`)))
}

// everywhere waits for something on all of my pages.
func (st *stage) everywhere(expression string) error {
	for _, tab := range st.mine {
		if err := await(tab, expression); err != nil {
			return err
		}
	}
	return nil
}

// window puts my pages out of sight, or back.
func (st *stage) window(state browser.WindowState) error {
	for _, tab := range st.mine {
		of := browser.GetWindowForTargetParams{TargetID: chromedp.FromContext(tab).Target.TargetID}
		window, err := chromedp.CallBrowser(tab, browser.GetWindowForTarget, of)
		if err != nil {
			return err
		}
		to := browser.SetWindowBoundsParams{WindowID: window.WindowID, Bounds: &browser.Bounds{WindowState: state}}
		if _, err := chromedp.CallBrowser(tab, browser.SetWindowBounds, to); err != nil {
			return err
		}
		hidden := fmt.Sprint(state == browser.WindowStateMinimized)
		if _, err := chromedp.Run(tab, chromedp.Evaluate[bool](`new Promise((done) => {
			const look = () => document.hidden === `+hidden+` && done(true);
			document.addEventListener('visibilitychange', look);
			look();
		})`, chromedp.EvalAwaitPromise)); err != nil {
			return err
		}
	}
	return nil
}

// write has somebody be about to say something, and my page show that. It leaves
// the field of mine, where the cursor blinks.
func (st *stage) write(tab context.Context) error {
	if _, err := chromedp.Run(tab, chromedp.Evaluate[bool](`document.activeElement?.blur(), true`)); err != nil {
		return err
	}
	for {
		if err := chromedp.Do(st.crew[crew[1]], chromedp.SendKeys(chromedp.CSS(`[data-testid=composer]`), "A")); err != nil {
			return err
		}
		soon, cancel := context.WithTimeout(tab, time.Second)
		err := await(soon, `!document.querySelector('[data-testid="typing"]').hidden`)
		cancel()
		if err == nil || tab.Err() != nil {
			return err
		}
	}
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
