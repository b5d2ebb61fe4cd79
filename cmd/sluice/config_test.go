package main

import (
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/alecthomas/kong"
)

func writeFile(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "sluice.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestFlagBeatsVariableBeatsFileBeatsDefault(t *testing.T) {
	byFlag, byVariable, byFile := newTestGateway(t), newTestGateway(t), newTestGateway(t)
	config := writeFile(t, "url: "+byFile.URL+"\nprint-id: true\n")
	for _, c := range []struct {
		name string
		env  map[string]string
		args []string
		want *testGateway
	}{
		{"file", nil, []string{"--config", config}, byFile},
		{"file by variable", map[string]string{"SLUICE_CONFIG": config}, nil, byFile},
		{"variable", map[string]string{"SLUICE_URL": byVariable.URL}, []string{"--config", config}, byVariable},
		{"flag", map[string]string{"SLUICE_URL": byVariable.URL, "SLUICE_CONFIG": config}, []string{"--url", byFlag.URL}, byFlag},
		{"empty variable", map[string]string{"SLUICE_URL": ""}, []string{"--config", config}, byFile},
	} {
		p := start(t, nil, c.env, append([]string{"send", "lobby", c.name}, c.args...)...)
		p.wait(t, 0)
		events := c.want.events("lobby")
		if n := len(events); n == 0 || string(events[n-1].data) != `"`+c.name+`"` || p.out.String() != events[n-1].id+"\n" {
			t.Errorf("%s: printed %q, and where the event should be there are %v", c.name, p.out, events)
		}
	}
}

func TestLocalFlagsAreForTheCommandLineOnly(t *testing.T) {
	g := newTestGateway(t)
	// As in a command of tail --exec.
	start(t, nil, map[string]string{"SLUICE_TYPE": "note", "SLUICE_JSON": "true"}, "send", "lobby", "not JSON", "--url", g.URL).wait(t, 0)
	if e := g.events("lobby")[0]; e.kind != "message" {
		t.Errorf("type %q out of the environment", e.kind)
	}
	_, stderr := sluice(t, 2, "send", "lobby", "x", "--config", writeFile(t, "key: k\n"))
	if !strings.Contains(stderr, `unknown key "key"`) {
		t.Errorf("stderr %q", stderr)
	}
}

// probeFlags are of the kinds that commands have.
type probeFlags struct {
	Body     size          `default:"64KiB"`
	Age      time.Duration `default:"1h"`
	Count    int           `default:"7"`
	Strict   bool          `default:"true" negatable:""`
	Origin   []string
	Rate     float64 `default:"1.5"`
	LogLevel string  `default:"info" enum:"info,debug"`
}

// probe resolves flags as run does.
func probe(t *testing.T, file string, env map[string]string, args ...string) (probeFlags, error) {
	t.Helper()
	var flags probeFlags
	set := &settings{getenv: func(name string) string { return env[name] }, file: &configFile{}}
	parser, err := kong.New(&flags, kong.NoDefaultHelp(), kong.Resolvers(set))
	if err != nil {
		t.Fatal(err)
	}
	set.file.Path = "f.yaml"
	if err := set.file.parse([]byte(file), flagNames(parser.Model.Node)); err != nil {
		return flags, err
	}
	_, err = parser.Parse(args)
	return flags, err
}

func TestFileAndEnvironmentHoldEveryKindOfFlag(t *testing.T) {
	want := probeFlags{Body: 1 << 20, Age: 90 * time.Minute, Count: 12, Strict: false, Origin: []string{"http://a", "http://b"}, Rate: 2.5, LogLevel: "debug"}
	file := `
# every kind
body: 1MiB
age: 1h30m
count: 12
strict: false
origin: ["http://a", "http://b"]
rate: 2.5
log-level: debug
`
	got, err := probe(t, file, nil)
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("from the file: %+v, %v, want %+v", got, err, want)
	}
	got, err = probe(t, "body: 5\norigin: [x]\n", map[string]string{
		"SLUICE_BODY": "1MiB", "SLUICE_AGE": "90m", "SLUICE_COUNT": "12", "SLUICE_STRICT": "false",
		"SLUICE_ORIGIN": "http://a,http://b", "SLUICE_RATE": "2.5", "SLUICE_LOG_LEVEL": "debug",
	})
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("from the environment: %+v, %v, want %+v", got, err, want)
	}
	got, err = probe(t, "origin: http://a\nage:\n", nil)
	if err != nil || !reflect.DeepEqual(got.Origin, []string{"http://a"}) || got.Age != time.Hour || got.Body != 64<<10 {
		t.Errorf("one value for a list, and a null: %+v, %v", got, err)
	}
	if got, err = probe(t, "", map[string]string{"SLUICE_STRICT": "yes"}, "--no-strict", "--body=5"); err != nil || got.Strict || got.Body != 5 {
		t.Errorf("flags over the environment: %+v, %v", got, err)
	}
}

func TestWrongValueSaysWhereItStands(t *testing.T) {
	for _, c := range []struct {
		file string
		env  map[string]string
		want []string
	}{
		{"count: 1\nage: soon\n", nil, []string{"f.yaml:2", "age", "soon"}},
		{"body: 64KB\n", nil, []string{"f.yaml:1", "body", "64KiB"}},
		{"count: [1, 2]\n", nil, []string{"f.yaml:1", "count", "not a list"}},
		{"age: {a: 1}\n", nil, []string{"f.yaml:1", "age", "plain value"}},
		{"log-level: loud\n", nil, []string{"log-level", "loud"}},
		{"\n\nbody-max: 1\n", nil, []string{"f.yaml:3", `"body-max"`}},
		{"config: other.yaml\n", nil, []string{"f.yaml:1", `"config"`}},
		{"age: 1h\nage: 2h\n", nil, []string{"f.yaml:2", "age"}},
		{"- age\n", nil, []string{"f.yaml:1", "mapping"}},
		{"age: 1h\n---\nage: 2h\n", nil, []string{"document"}},
		{"age: [1h\n", nil, []string{"f.yaml:1"}},
		{"", map[string]string{"SLUICE_COUNT": "many"}, []string{"SLUICE_COUNT", "many"}},
		{"", map[string]string{"SLUICE_LOG_LEVEL": "\xff"}, []string{"SLUICE_LOG_LEVEL", "UTF-8"}},
	} {
		_, err := probe(t, c.file, c.env)
		if err == nil {
			t.Errorf("file %q, environment %v: no error", c.file, c.env)
			continue
		}
		for _, want := range c.want {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("file %q, environment %v: error %q lacks %q", c.file, c.env, err, want)
			}
		}
		if strings.Contains(err.Error(), "\n") {
			t.Errorf("file %q: an error of several lines: %q", c.file, err)
		}
	}
}

func parseFile(text string) (*configFile, error) {
	f := &configFile{Path: "f.yaml"}
	return f, f.parse([]byte(text), map[string]bool{"listen": true})
}

func TestNamespacesKeepWhatTheFileLeavesOpenOpen(t *testing.T) {
	f, err := parseFile(`
listen: 127.0.0.1:0
namespaces:
  chat: {history-events: 50, history-age: 48h, presence: true, ephemeral: false, public-subscribe: true, public-publish: false}
  typing:
    ephemeral: true
  plain:
`)
	if err != nil {
		t.Fatal(err)
	}
	yes, no, events, age := true, false, 50, 48*time.Hour
	want := map[string]Namespace{
		"chat":   {HistoryEvents: &events, HistoryAge: &age, Presence: &yes, Ephemeral: &no, PublicSubscribe: &yes, PublicPublish: &no},
		"typing": {Ephemeral: &yes},
		"plain":  {},
	}
	if !reflect.DeepEqual(f.Namespaces, want) {
		t.Errorf("got %+v, want %+v", f.Namespaces, want)
	}
}

func TestWrongNamespaceSaysWhereItStands(t *testing.T) {
	for _, c := range []struct {
		text string
		want []string
	}{
		{"namespaces:\n  chat:\n    presense: true\n", []string{"f.yaml:3", "presense"}},
		{"namespaces: {chat: {history-events: many}}\n", []string{"f.yaml:1", "int"}},
		{"namespaces: {chat: {history-age: soon}}\n", []string{"f.yaml"}},
		{"namespaces:\n  chat: {history-events: 0}\n", []string{"f.yaml:2", "history-events", "ephemeral"}},
		{"namespaces:\n  chat: {history-age: -1h}\n", []string{"f.yaml:2", "history-age"}},
		{"namespaces:\n  'a:b': {presence: true}\n", []string{"f.yaml:2", `"a:b"`}},
		{"namespaces: [chat]\n", []string{"f.yaml:1", "mapping"}},
		{"namespaces:\n  chat: yes\n", []string{"f.yaml:2", "chat", "mapping"}},
		{"namespaces:\n  chat: {presence: true}\n  chat: {presence: false}\n", []string{"f.yaml:3", "chat"}},
		{"x: &a {presence: true}\nnamespaces:\n  <<: *a\n", []string{"f.yaml"}},
	} {
		_, err := parseFile(c.text)
		if err == nil {
			t.Errorf("%q: no error", c.text)
			continue
		}
		for _, want := range c.want {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("%q: error %q lacks %q", c.text, err, want)
			}
		}
		if strings.Contains(err.Error(), "\n") {
			t.Errorf("%q: an error of several lines: %q", c.text, err)
		}
	}
}

func TestUnknownKeyInTheFileEndsTheProgram(t *testing.T) {
	config := writeFile(t, "url: http://127.0.0.1:1\ntokn: x\n")
	_, stderr := sluice(t, 2, "send", "lobby", "x", "--config", config)
	if want := config + `:2: unknown key "tokn"`; !strings.Contains(stderr, want) || strings.Count(stderr, "\n") != 1 {
		t.Errorf("stderr %q, want one line with %q", stderr, want)
	}
}

// FuzzConfigFile: whatever stands in a file is taken, or refused in one line.
func FuzzConfigFile(f *testing.F) {
	for _, s := range []string{"", "listen: a", "namespaces: {a: {presence: true}}", "a: &b [*b]", "? a\n: b", "listen: |\n  x", "- 1", "\t", "listen: !!binary x", "<<: {listen: a}"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if _, err := parseFile(text); err != nil && strings.Contains(err.Error(), "\n") {
			t.Errorf("%q: an error of several lines: %q", text, err)
		}
	})
}

func TestSizes(t *testing.T) {
	for text, want := range map[string]size{
		"0": 0, "65536": 65536, "64KiB": 64 << 10, "64kib": 64 << 10, "64 KiB": 64 << 10, "1MiB": 1 << 20, "2GiB": 2 << 30, "10B": 10,
		"8589934591GiB": 8589934591 << 30,
	} {
		var got size
		if err := got.UnmarshalText([]byte(text)); err != nil || got != want {
			t.Errorf("%q: %d, %v, want %d", text, got, err, want)
		}
	}
	for _, text := range []string{"", "KiB", "-1", "+1", "1.5MiB", "64KB", "64K", "0x10", "1_000", "8589934592GiB", "9223372036854775808", " 1"} {
		var got size
		if err := got.UnmarshalText([]byte(text)); err == nil {
			t.Errorf("%q: %d, want an error", text, got)
		}
	}
}

func FuzzSize(f *testing.F) {
	f.Add("64KiB")
	f.Add("1025")
	f.Fuzz(func(t *testing.T, text string) {
		var s, again size
		if s.UnmarshalText([]byte(text)) != nil {
			return
		}
		if err := again.UnmarshalText([]byte(fmt.Sprint(s))); err != nil || again != s || s < 0 {
			t.Errorf("%q is %d, prints as %q, which is %d (%v)", text, int64(s), s, int64(again), err)
		}
	})
}
