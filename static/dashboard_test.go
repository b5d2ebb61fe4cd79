package static

import (
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// dashboardScripts are what the dashboard consists of, besides the client.
var dashboardScripts = []string{"/dashboard.js", "/dashboard-charts.js", "/dashboard-nodes.js", "/dashboard-room.js"}

func TestTheDashboardHasNothingInlineAndAsksForNothingElse(t *testing.T) {
	for _, e := range elements(t, "/dashboard") {
		if e.Data == "style" || e.Data == "script" && attribute(e, "src") == "" {
			t.Errorf("inline %s, which the policy forbids", e)
		}
		for _, a := range e.Attr {
			if a.Key == "style" || strings.HasPrefix(a.Key, "on") {
				t.Errorf("%s has the attribute %s, which the policy forbids", e, a.Key)
			}
		}
		for _, name := range []string{"src", "href", "action"} {
			value := attribute(e, name)
			if value == "" || strings.HasPrefix(value, "#") {
				continue
			}
			u, err := url.Parse(value)
			if err != nil || u.IsAbs() || u.Host != "" || !slices.Contains(Paths(), u.Path) {
				t.Errorf("%s points to %q, which is not served here", e, value)
			}
		}
	}
	for _, path := range dashboardScripts {
		_, script := ask(t, http.MethodGet, path)
		for _, m := range regexp.MustCompile(`(?m)^import .* from '([^']+)';$`).FindAllStringSubmatch(script, -1) {
			if !slices.Contains(Paths(), m[1]) {
				t.Errorf("%s imports %s, which is not served here", path, m[1])
			}
		}
	}
}

func TestTheDashboardsScriptsMakeNoMarkup(t *testing.T) {
	sinks := regexp.MustCompile(`innerHTML|outerHTML|insertAdjacentHTML|setHTMLUnsafe|document\.write|srcdoc|createContextualFragment|DOMParser|\beval\b|new Function|cssText|\bimport\(|localStorage`)
	for _, path := range dashboardScripts {
		_, script := ask(t, http.MethodGet, path)
		if found := sinks.FindAllString(script, -1); found != nil {
			t.Errorf("%s uses %q; what nodes and rooms say must only become text, and a token be kept nowhere else", path, found)
		}
	}
}

func TestTheDashboardsScriptsFindTheirElements(t *testing.T) {
	ids := make(map[string]bool)
	for _, e := range elements(t, "/dashboard") {
		id := attribute(e, "id")
		if id != "" && ids[id] {
			t.Errorf("the id %q stands twice in the page", id)
		}
		ids[id] = true
	}
	looked := 0
	for _, path := range dashboardScripts {
		_, script := ask(t, http.MethodGet, path)
		for _, m := range regexp.MustCompile(`byId\('([^']+)'\)`).FindAllStringSubmatch(script, -1) {
			looked++
			if !ids[m[1]] {
				t.Errorf("%s looks for #%s, which is not in the page", path, m[1])
			}
		}
	}
	if looked == 0 {
		t.Error("no script looks for any element: this test looks for the wrong thing")
	}
}

func TestTheDashboardsFieldsAndButtonsHaveNames(t *testing.T) {
	labelled := make(map[string]bool)
	for _, e := range elements(t, "/dashboard") {
		if e.Data == "label" {
			labelled[attribute(e, "for")] = true
		}
	}
	for _, e := range elements(t, "/dashboard") {
		field := (e.Data == "input" || e.Data == "textarea") && attribute(e, "type") != "checkbox" // which stands in its label
		if field && attribute(e, "aria-label") == "" && !labelled[attribute(e, "id")] {
			t.Errorf("%s has no label", e)
		}
		if e.Data == "button" && strings.Contains(attribute(e, "class"), "icon") && attribute(e, "aria-label") == "" {
			t.Errorf("%s shows an icon only and has no name", e)
		}
		if e.Data == "th" && attribute(e, "role") != "columnheader" {
			t.Errorf("%s loses its part where the table is shown as cards; give it a role", e)
		}
	}
}
