package e2e

import (
	"bufio"
	"compress/gzip"
	"debug/elf"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/goccy/go-yaml"
)

// read gives a file of the project.
func read(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(top, path))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// serveHelp is what the program says of serve, in one line.
func serveHelp(t *testing.T) string {
	t.Helper()
	out, err := exec.Command(program, "serve", "--help").Output()
	if err != nil {
		t.Fatal(err)
	}
	return strings.Join(strings.Fields(string(out)), " ")
}

// defaultDrain is how long a node takes to end unless it is told otherwise.
func defaultDrain(t *testing.T) time.Duration {
	t.Helper()
	found := regexp.MustCompile(`default (\w+), \$SLUICE_DRAIN\b`).FindStringSubmatch(serveHelp(t))
	if found == nil {
		t.Fatal("the help of serve does not tell the default of --drain")
	}
	return duration(t, found[1])
}

func duration(t *testing.T, text string) time.Duration {
	t.Helper()
	d, err := time.ParseDuration(text)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// checkVariables says which of a node's variables it does not know.
func checkVariables(t *testing.T, where string, names []string) {
	t.Helper()
	help := serveHelp(t)
	for _, name := range names {
		if !regexp.MustCompile(`\$` + name + `\b`).MatchString(help) {
			t.Errorf("%s sets %s, of which serve knows nothing", where, name)
		}
	}
}

// strictly decodes YAML in which nothing may stand that v does not name.
func strictly(t *testing.T, text string, v any) {
	t.Helper()
	if err := yaml.NewDecoder(strings.NewReader(text), yaml.DisallowUnknownField()).Decode(v); err != nil {
		t.Fatalf("%v\nin\n%s", err, text)
	}
}

// analyze runs systemd-analyze, which test.sh installs.
func analyze(t *testing.T, args ...string) {
	t.Helper()
	path, err := exec.LookPath("systemd-analyze")
	if err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal("systemd-analyze is missing; on Debian: apt-get install systemd")
		}
		t.Skip("systemd-analyze is missing; on Debian: apt-get install systemd")
	}
	if out, err := exec.Command(path, args...).CombinedOutput(); err != nil {
		t.Errorf("systemd-analyze %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

const (
	unit       = "deploy/systemd/sluice.service"
	socketUnit = "deploy/systemd/sluice.socket"
)

func TestSystemdTakesTheUnit(t *testing.T) {
	t.Parallel() // it mostly waits
	text := read(t, unit)
	found := regexp.MustCompile(`(?m)^TimeoutStopSec=(\w+)$`).FindStringSubmatch(text)
	if found == nil || duration(t, found[1]) <= defaultDrain(t) {
		t.Errorf("a node has %v to end, and takes %v", found, defaultDrain(t))
	}
	// The program is where the package puts it; here it is elsewhere.
	here := strings.ReplaceAll(text, "/usr/local/bin/sluice", program)
	if here == text {
		t.Fatal("the unit does not start /usr/local/bin/sluice")
	}
	dir := t.TempDir()
	service, socket := filepath.Join(dir, "sluice.service"), filepath.Join(dir, "sluice.socket")
	if err := errors.Join(os.WriteFile(service, []byte(here), 0o644), os.WriteFile(socket, []byte(read(t, socketUnit)), 0o644)); err != nil {
		t.Fatal(err)
	}
	analyze(t, "verify", "--man=no", service, socket)
}

func TestTheUnitGivesAwayLittle(t *testing.T) {
	// Of 100; 20 is what systemd itself calls OK.
	analyze(t, "security", "--offline=true", "--threshold=20", filepath.Join(top, unit))
}

// composed is what of compose.yaml is looked at; a name that is not here is a
// mistake, or is to be added.
type composed struct {
	Services map[string]struct {
		Image, Build, Command string
		Environment           map[string]string
		DependsOn             any `yaml:"depends_on"`
		Healthcheck           struct {
			Test     []string
			Interval string
		}
		StopGracePeriod string `yaml:"stop_grace_period"`
		Ulimits         map[string]int
		Ports, Volumes  []string
	}
	Volumes map[string]any
}

func TestComposeJoinsTwoNodesRedisAndCaddy(t *testing.T) {
	var c composed
	strictly(t, read(t, "compose.yaml"), &c)
	redis, caddy := c.Services["redis"], c.Services["caddy"]
	for _, name := range []string{"node1", "node2"} {
		n := c.Services[name]
		if n.Build != "." || n.Ulimits["nofile"] < 100000 || !strings.Contains(n.Environment["SLUICE_REDIS"], "//redis:") {
			t.Errorf("%s is %+v", name, n)
		}
		checkVariables(t, name, slices.Collect(maps.Keys(n.Environment)))
		if n.StopGracePeriod == "" || duration(t, n.StopGracePeriod) <= defaultDrain(t) {
			t.Errorf("%s has %q to end, and takes %v", name, n.StopGracePeriod, defaultDrain(t))
		}
		if !strings.Contains(" "+caddy.Environment["SLUICE_NODES"]+" ", " "+name+":8080 ") {
			t.Errorf("Caddy does not know %s: %v", name, caddy.Environment)
		}
	}
	for _, want := range []string{"--appendonly yes", "--maxmemory-policy noeviction"} {
		if !strings.Contains(redis.Command, want) {
			t.Errorf("Redis lacks %s: %s", want, redis.Command)
		}
	}
	caddyfile := read(t, "Caddyfile")
	for name := range caddy.Environment {
		if !strings.Contains(caddyfile, "{$"+name) {
			t.Errorf("the Caddyfile knows no %s", name)
		}
	}
	for name, s := range c.Services {
		for _, mount := range s.Volumes {
			source, _, _ := strings.Cut(mount, ":")
			if path, ok := strings.CutPrefix(source, "./"); ok {
				read(t, path)
			} else if _, declared := c.Volumes[source]; !declared {
				t.Errorf("%s mounts %s, which is not declared", name, source)
			}
		}
	}
}

// instructions gives the arguments of the Dockerfile's last stage.
func instructions(t *testing.T) map[string][]string {
	t.Helper()
	var of map[string][]string
	lines := bufio.NewScanner(strings.NewReader(read(t, "Dockerfile")))
	for lines.Scan() {
		name, rest, ok := strings.Cut(lines.Text(), " ")
		switch {
		case !ok || name == "#":
		case name == "FROM":
			of = map[string][]string{name: {rest}}
		default:
			of[name] = append(of[name], rest)
		}
	}
	return of
}

// command reads the JSON form of a command.
func command(t *testing.T, text string) []string {
	t.Helper()
	var args []string
	if err := json.Unmarshal([]byte(text[strings.IndexByte(text, '['):]), &args); err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	return args
}

func TestTheImageIsTheProgramAlone(t *testing.T) {
	of := instructions(t)
	if of["FROM"][0] != "scratch" {
		t.Errorf("the image begins with %s", of["FROM"][0])
	}
	if user := of["USER"]; len(user) != 1 || strings.HasPrefix(user[0], "0") || strings.HasPrefix(user[0], "root") {
		t.Errorf("the program runs as %v", user)
	}
	var names []string
	for setting := range strings.FieldsSeq(strings.Join(of["ENV"], " ")) {
		name, _, _ := strings.Cut(setting, "=")
		names = append(names, name)
	}
	checkVariables(t, "the image", names)
}

// staticProgram builds the program as the image has it.
func staticProgram(t *testing.T, path string) {
	t.Helper()
	cmd := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w -X main.release=v1.2.3", "-o", path, "sluice/cmd/sluice")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("building: %v\n%s", err, out)
	}
}

func TestTheProgramRunsFromAnEmptyRoot(t *testing.T) {
	t.Parallel() // half of its time it waits
	root := t.TempDir()
	if err := os.Chmod(root, 0o755); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(root, "sluice")
	staticProgram(t, path)
	needsNothing(t, path)
	of := instructions(t)
	entry, args := command(t, of["ENTRYPOINT"][0]), command(t, of["CMD"][0])
	if entry[0] != "/sluice" {
		t.Fatalf("the image starts %v", entry)
	}
	if os.Geteuid() != 0 {
		t.Skip("changing the root needs root")
	}
	if err := os.Chmod(filepath.Dir(root), 0o755); err != nil {
		t.Fatal(err)
	}
	inside := func(args ...string) *exec.Cmd {
		cmd := exec.Command("chroot", slices.Concat([]string{"--userspec=" + of["USER"][0], root}, args)...)
		cmd.Env = []string{}
		return cmd
	}
	addr := freeAddr(t)
	p := launch(t, inside(slices.Concat(entry, args, []string{"--listen", addr, "--admin="})...))
	p.await(t, p.err, `"msg":"serving"`)

	health := command(t, of["HEALTHCHECK"][0])
	last := len(health) - 1
	health[last] = strings.Replace(health[last], "127.0.0.1:8080", addr, 1)
	if out, err := inside(health...).CombinedOutput(); err != nil {
		t.Errorf("%v: %v\n%s", health, err, out)
	}
	health[last] = "http://" + freeAddr(t) + "/readyz"
	if out, err := inside(health...).CombinedOutput(); err == nil {
		t.Errorf("nobody listens, and the health check is content: %s", out)
	}
	if out, err := inside("/sluice", "--version").Output(); err != nil || !strings.Contains(string(out), "v1.2.3") {
		t.Errorf("the version is %q, %v", out, err)
	}
	stop := &node{t: t, proc: p}
	stop.stop()
}

// needsNothing says that a program needs no loader and no library.
func needsNothing(t *testing.T, path string) {
	t.Helper()
	file, err := elf.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	for _, prog := range file.Progs {
		if prog.Type == elf.PT_INTERP {
			t.Error("the program needs a loader")
		}
	}
	if libraries, err := file.ImportedLibraries(); len(libraries) > 0 {
		t.Errorf("the program needs %v (%v)", libraries, err)
	}
}

func TestReleasesPackWhatThereIs(t *testing.T) {
	t.Parallel() // half of its time it waits
	var r struct {
		Version int
		Before  struct{ Hooks []string }
		Builds  []struct {
			Main, Binary string
			Ldflags      []string
			Env          []string
		}
		Archives []struct{ Files []string }
		NFPMs    []struct {
			Bindir   string
			Contents []struct{ Src, Dst string }
		}
	}
	if err := yaml.NewDecoder(strings.NewReader(read(t, ".goreleaser.yaml"))).Decode(&r); err != nil && !errors.Is(err, io.EOF) {
		t.Fatal(err)
	}
	if r.Version != 2 || len(r.Builds) != 1 || r.Builds[0].Main != "./cmd/sluice" || !slices.Contains(r.Builds[0].Env, "CGO_ENABLED=0") {
		t.Fatalf("releases are built by %+v", r.Builds)
	}
	if !strings.Contains(strings.Join(r.Builds[0].Ldflags, " "), "-X main.release=") || !strings.Contains(read(t, "cmd/sluice/main.go"), "var release string") {
		t.Error("a release does not tell its version")
	}
	made := t.TempDir() // where the hooks write, instead of packed
	place := func(path string) string {
		if name, ok := strings.CutPrefix(path, "packed/"); ok {
			return filepath.Join(made, name)
		}
		return filepath.Join(top, path)
	}
	for _, hook := range r.Before.Hooks {
		args := strings.Fields(strings.NewReplacer("{{ .Tag }}", "v1.2.3", " packed ", " "+made+" ").Replace(hook))
		if out, err := exec.Command(filepath.Join(top, args[0]), args[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("%s: %v\n%s", hook, err, out)
		}
	}
	for _, pattern := range r.Archives[0].Files {
		if found, err := filepath.Glob(place(strings.ReplaceAll(pattern, "**", "*"))); err != nil || len(found) == 0 {
			t.Errorf("archives hold %s, which is nothing (%v)", pattern, err)
		}
	}
	for _, c := range r.NFPMs[0].Contents {
		if text, err := os.ReadFile(place(c.Src)); err != nil || len(text) == 0 {
			t.Errorf("packages hold %s: %d bytes, %v", c.Src, len(text), err)
		}
	}
	checkReleaseOfManual(t, filepath.Join(made, "sluice.1.gz"), "v1.2.3")
	if !strings.Contains(read(t, unit), "ExecStart="+r.NFPMs[0].Bindir+"/"+r.Builds[0].Binary+" ") {
		t.Errorf("packages put the program in %s, where the unit does not look", r.NFPMs[0].Bindir)
	}
}

// checkReleaseOfManual reads of which release a manual page says it is.
func checkReleaseOfManual(t *testing.T, path, release string) {
	t.Helper()
	file, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	unpacked, err := gzip.NewReader(file)
	if err != nil {
		t.Fatal(err)
	}
	title, err := bufio.NewReader(unpacked).ReadString('\n')
	if err != nil || !strings.HasPrefix(title, ".TH SLUICE 1 ") || !strings.Contains(title, release) {
		t.Errorf("the manual begins with %q (%v), want it to tell of %s", title, err, release)
	}
}
