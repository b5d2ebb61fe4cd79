package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/chromedp"
)

// shot is one picture: a file of this name, and what the page is looked at with.
type shot struct {
	name          string
	width, height int64
	scale         float64
	phone, dark   bool
}

var shots = []shot{
	{name: "desktop-light", width: 1200, height: 900, scale: 2},
	{name: "desktop-dark", width: 1200, height: 900, scale: 2, dark: true},
	{name: "phone-light", width: 390, height: 774, scale: 2, phone: true},
	{name: "phone-dark", width: 390, height: 774, scale: 2, phone: true, dark: true},
}

// emulate has the tab show pages as the shot's device does.
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
	if _, err := chromedp.Call(tab, emulation.SetEmulatedMedia, media); err != nil {
		return err
	}
	if _, err := chromedp.Call(tab, emulation.SetTimezoneOverride, emulation.SetTimezoneOverrideParams{TimezoneID: clock()}); err != nil {
		return err
	}
	_, err := chromedp.Call(tab, emulation.SetLocaleOverride, emulation.SetLocaleOverrideParams{Locale: "en-GB"})
	return err
}

// lookAt brings up a page as the shot's device shows it, and waits for an element.
func (s *shot) lookAt(tab context.Context, url, element string) error {
	if err := s.emulate(tab); err != nil {
		return err
	}
	return chromedp.Do(tab, chromedp.Navigate(url), chromedp.WaitVisible(chromedp.CSS(element)))
}

// clock is a time zone in which it is past ten in the morning now.
func clock() string {
	ahead := (10-time.Now().UTC().Hour()+36)%24 - 12
	return fmt.Sprintf("Etc/GMT%+d", -ahead) // their signs are the other way round
}

// take writes the picture of what the tab shows into a folder.
func (s *shot) take(tab context.Context, out string) error {
	picture, err := chromedp.Run(tab, chromedp.CaptureScreenshot())
	if err != nil {
		return err
	}
	name := filepath.Join(out, s.name+".png")
	if err := os.WriteFile(name, picture, 0o644); err != nil {
		return err
	}
	fmt.Println(name)
	return nil
}

// await waits until an expression is true in the page, looking after each change.
func await(tab context.Context, expression string) error {
	promise := `new Promise((done) => {
		const look = () => (` + expression + `) && (watch.disconnect(), done(true));
		const watch = new MutationObserver(look);
		watch.observe(document, { subtree: true, childList: true, attributes: true, characterData: true });
		look();
	})`
	if _, err := chromedp.Run(tab, chromedp.Evaluate[bool](promise, chromedp.EvalAwaitPromise)); err != nil {
		return fmt.Errorf("waiting for %s: %w", expression, err)
	}
	return nil
}
