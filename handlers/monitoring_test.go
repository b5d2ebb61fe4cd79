package handlers

import (
	"encoding/json"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"
	dto "github.com/prometheus/client_model/go"
)

// panel is what of a panel of the dashboard is looked at here.
type panel struct {
	Type, Title string
	GridPos     struct{ H, W, X, Y int }
	Targets     []struct{ Expr string }
}

func dashboard(t *testing.T) (panels []panel, variables []string) {
	t.Helper()
	text, err := os.ReadFile("../deploy/grafana/sluice.json")
	if err != nil {
		t.Fatal(err)
	}
	var d struct {
		UID, Title string
		Panels     []panel
		Templating struct{ List []struct{ Query any } }
	}
	if err := json.Unmarshal(text, &d); err != nil {
		t.Fatal(err)
	}
	if d.UID == "" || d.Title == "" || len(d.Panels) == 0 {
		t.Fatalf("the dashboard has uid %q, title %q and %d panels", d.UID, d.Title, len(d.Panels))
	}
	for _, v := range d.Templating.List {
		if query, ok := v.Query.(map[string]any); ok {
			variables = append(variables, query["query"].(string))
		}
	}
	return d.Panels, variables
}

// rule is an alert.
type rule struct {
	Alert, Expr         string
	Labels, Annotations map[string]string
}

func alerts(t *testing.T) []rule {
	t.Helper()
	text, err := os.ReadFile("../deploy/prometheus/alerts.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var file struct {
		Groups []struct {
			Name  string
			Rules []rule
		}
	}
	if err := yaml.Unmarshal(text, &file); err != nil {
		t.Fatal(err)
	}
	var all []rule
	for _, group := range file.Groups {
		all = append(all, group.Rules...)
	}
	if len(all) == 0 {
		t.Fatal("there are no alerts")
	}
	return all
}

var (
	metricName = regexp.MustCompile(`\b(?:sluice|process|go|promhttp)_[a-z0-9_]+`)
	matcher    = regexp.MustCompile(`\b((?:sluice)_[a-z0-9_]+)\{([^}]*)\}`)
	labelMatch = regexp.MustCompile(`([a-z_]+)(=~|=)"([^"$]*)"`)
)

// checkQuery says what a query asks for that no node has.
func checkQuery(t *testing.T, where, query string, have map[string]*dto.MetricFamily) {
	t.Helper()
	names := metricName.FindAllString(query, -1)
	if len(names) == 0 && !strings.HasPrefix(query, "up{") {
		t.Errorf("%s asks for no metric of ours: %s", where, query)
	}
	for _, name := range names {
		if family(have, name) == nil {
			t.Errorf("%s asks for %s, which no node has", where, name)
		}
	}
	for _, m := range matcher.FindAllStringSubmatch(query, -1) {
		for _, l := range labelMatch.FindAllStringSubmatch(m[2], -1) {
			if l[1] == "job" || l[1] == "instance" || l[1] == "problem" || l[1] == "status" {
				continue // Prometheus's own, and those whose values come as they happen
			}
			for value := range strings.SplitSeq(l[3], "|") {
				if !hasLabel(family(have, m[1]), l[1], value) {
					t.Errorf("%s asks for %s with %s=%q, which no node has", where, m[1], l[1], value)
				}
			}
		}
	}
	if strings.Count(query, "(") != strings.Count(query, ")") || strings.Count(query, "{") != strings.Count(query, "}") {
		t.Errorf("%s: brackets do not close: %s", where, query)
	}
}

// family finds the metric that a name in a query is of.
func family(have map[string]*dto.MetricFamily, name string) *dto.MetricFamily {
	if f := have[name]; f != nil && f.GetType() != dto.MetricType_HISTOGRAM {
		return f
	}
	for _, suffix := range []string{"_bucket", "_count", "_sum", ""} {
		base, ok := strings.CutSuffix(name, suffix)
		if f := have[base]; ok && f.GetType() == dto.MetricType_HISTOGRAM {
			return f
		}
	}
	return nil
}

func hasLabel(f *dto.MetricFamily, name, value string) bool {
	return slices.ContainsFunc(f.GetMetric(), func(m *dto.Metric) bool {
		return slices.ContainsFunc(m.GetLabel(), func(l *dto.LabelPair) bool {
			return l.GetName() == name && l.GetValue() == value
		})
	})
}

func TestTheDashboardShowsMetricsThatThereAre(t *testing.T) {
	have := everyMetric(t)
	panels, variables := dashboard(t)
	shown := strings.Join(variables, " ")
	for _, v := range variables {
		checkQuery(t, "a variable", v, have)
	}
	for i, p := range panels {
		for _, target := range p.Targets {
			checkQuery(t, "panel "+p.Title, target.Expr, have)
			shown += " " + target.Expr
		}
		if p.Type != "row" && len(p.Targets) == 0 {
			t.Errorf("panel %s shows nothing", p.Title)
		}
		if p.GridPos.X+p.GridPos.W > 24 {
			t.Errorf("panel %s sticks out", p.Title)
		}
		for _, q := range panels[:i] {
			a, b := p.GridPos, q.GridPos
			if a.X < b.X+b.W && b.X < a.X+a.W && a.Y < b.Y+b.H && b.Y < a.Y+a.H {
				t.Errorf("panels %s and %s overlap", q.Title, p.Title)
			}
		}
	}
	for name := range have {
		if strings.HasPrefix(name, "sluice_") && !strings.Contains(shown, name) {
			t.Errorf("%s is on no panel", name)
		}
	}
}

func TestAlertsAskForMetricsThatThereAreAndHaveARunbook(t *testing.T) {
	manual, err := os.ReadFile("../docs/operations.md")
	if err != nil {
		t.Fatal(err)
	}
	have := everyMetric(t)
	var seen []string
	for _, a := range alerts(t) {
		checkQuery(t, a.Alert, a.Expr, have)
		if slices.Contains(seen, a.Alert) {
			t.Errorf("%s stands there twice", a.Alert)
		}
		seen = append(seen, a.Alert)
		if a.Annotations["runbook"] != "docs/operations.md#"+strings.ToLower(a.Alert) || a.Annotations["summary"] == "" {
			t.Errorf("%s: the annotations are %v", a.Alert, a.Annotations)
		}
		if severity := a.Labels["severity"]; severity != "page" && severity != "ticket" {
			t.Errorf("%s is of severity %q", a.Alert, severity)
		}
		_, text, ok := strings.Cut(string(manual), "\n### "+a.Alert+"\n")
		text, _, _ = strings.Cut(text, "\n#")
		if !ok || len(strings.TrimSpace(text)) < 100 {
			t.Errorf("docs/operations.md says too little of %s: %q", a.Alert, text)
		}
	}
	for heading := range strings.SplitSeq(string(manual), "\n") {
		if name, ok := strings.CutPrefix(heading, "### Sluice"); ok && !slices.Contains(seen, "Sluice"+name) {
			t.Errorf("docs/operations.md tells of an alert that is not there: Sluice%s", name)
		}
	}
}
