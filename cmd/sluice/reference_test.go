package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// generated runs a command that prints a file, and writes that down.
func generated(t *testing.T, name string, args ...string) (path string) {
	t.Helper()
	text, stderr := sluice(t, 0, args...)
	if stderr != "" {
		t.Errorf("sluice %q said %q", args, stderr)
	}
	return writeIn(t, t.TempDir(), name, text)
}

// tool finds a program that test.sh installs.
func tool(t *testing.T, name, debian string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		t.Fatalf("%s is missing; on Debian: apt-get install %s", name, debian)
	}
	return path
}

// terminal is a shell at a terminal, as a person sits before it.
type terminal struct {
	t    *testing.T
	keys interface{ Write([]byte) (int, error) }
	out  *output
}

// sitDown starts a shell in which sluice is a function that prints its
// arguments, and which was told how to complete it.
func sitDown(t *testing.T, shell string, setup ...string) *terminal {
	t.Helper()
	cmd := exec.Command(tool(t, "script", "bsdutils"), "-qec", shell, "/dev/null")
	cmd.Dir = t.TempDir() // no files that could complete anything
	cmd.Env = append(os.Environ(), "TERM=dumb", "PS1=", "HISTFILE=", "INPUTRC=/dev/null")
	keys, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	s := &terminal{t: t, keys: keys, out: new(output)}
	cmd.Stdout, cmd.Stderr = s.out, s.out
	startUntilTheEnd(t, cmd)
	// What is typed is seen on the terminal, so the prompt is spelled otherwise.
	s.press(strings.Join(append(setup, `sluice() { echo "[$*]"; }`, `PS1='rea''dy> '`), "; ") + "\n")
	s.out.await(t, "ready> ")
	return s
}

func (s *terminal) press(keys string) {
	s.t.Helper()
	if _, err := s.keys.Write([]byte(keys)); err != nil {
		s.t.Fatal(err)
	}
}

// types presses keys and waits for what is to be seen then.
func (s *terminal) types(keys string, seen ...string) {
	s.t.Helper()
	s.press(keys)
	for _, piece := range seen {
		s.out.await(s.t, piece)
	}
}

func TestBashCompletesAtATerminal(t *testing.T) {
	t.Parallel() // it mostly waits
	s := sitDown(t, "bash --norc --noprofile -i", "source "+generated(t, "sluice.bash", "completion", "bash"))
	s.types("sluice se\t\t", "send ", " serve")
	s.types("r\t--framing=cl\t--log-level er\t\n", "[serve --framing=close --log-level error]")
	s.types("sluice tai\tlobby --las\t3\n", "[tail lobby --last 3]")
	s.types("sluice help doc\t\n", "[help doctor]")
	s.types("sluice --config=x completion fi\t\n", "[--config=x completion fish]")
	s.types("touch secret.pem && echo made\n", "\nmade")
	s.types("sluice token --key sec\t\n", "[token --key secret.pem]")
}

func TestZshCompletesAtATerminal(t *testing.T) {
	t.Parallel() // it mostly waits
	tool(t, "zsh", "zsh")
	s := sitDown(t, "zsh -f -i", "autoload -U compinit", "compinit -u -D", "source "+generated(t, "_sluice", "completion", "zsh"))
	s.types("sluice tai\tlobby --las\t3\n", "[tail lobby --last=3]")
	s.types("sluice serv\t--framing=cl\t\n", "[serve --framing=close]")
	s.types("sluice help doc\t\n", "[help doctor]")
}

func TestFishCompletes(t *testing.T) {
	t.Parallel() // it mostly waits
	file := generated(t, "sluice.fish", "completion", "fish")
	for line, want := range map[string][]string{
		"sluice se":                {"send", "serve"},
		"sluice tail --las":        {"--last"},
		"sluice serve --framing ":  {"chunked", "close"},
		"sluice completion ":       {"bash", "fish", "zsh"},
		"sluice serve --exec":      nil,
		"sluice help doc":          {"doctor"},
		"sluice serve --log-level": {"--log-level"},
	} {
		cmd := exec.Command(tool(t, "fish", "fish"), "--no-config", "-c", "source $argv[1]; complete -C $argv[2]", file, line)
		cmd.Dir = t.TempDir()
		cmd.Env = append(os.Environ(), "HOME="+cmd.Dir)
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		var got []string
		for l := range strings.Lines(string(out)) {
			word, _, _ := strings.Cut(strings.TrimSpace(l), "\t")
			got = append(got, word)
		}
		if slices.Sort(got); !slices.Equal(got, want) {
			t.Errorf("%q is completed by %q, want %q", line, got, want)
		}
	}
}

// TestManualPageIsAccepted reads the page by both formatters that systems have.
func TestManualPageIsAccepted(t *testing.T) {
	page := generated(t, "sluice.1", "man")
	for _, args := range [][]string{
		{tool(t, "mandoc", "mandoc"), "-Tlint", "-W", "warning", page},
		{tool(t, "groff", "groff-base"), "-ww", "-man", "-Tutf8", "-z", page},
	} {
		if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil || len(out) > 0 {
			t.Errorf("%s: %v\n%s", filepath.Base(args[0]), err, out)
		}
	}
	out, err := exec.Command("mandoc", "-Tutf8", "-O", "width=1000", page).Output()
	if err != nil {
		t.Fatal(err)
	}
	text := unstruck(string(out))
	for _, want := range []string{
		"sluice tail room ... [flags]",
		"--config=FILE\n",
		"Instead of printing, run CMD by the shell for each event",
		"(default 24h, $SLUICE_HISTORY_AGE)",
		"redis+sentinel://h1:26379,h2:26379/master",
		"-h, --help\n",
		"EXIT STATUS\n",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("the page has no %q", want)
		}
	}
	stdout, _ := sluice(t, 0, "help")
	for _, line := range strings.Split(stdout, "\n") {
		command := regexp.MustCompile(`^  (\w+)`).FindStringSubmatch(line)
		if command != nil && !strings.Contains(text, "\n   sluice "+command[1]+"\n") {
			t.Errorf("the page says nothing of the command %s", command[1])
		}
	}
}

// unstruck is text without what makes a line printer print it bold.
func unstruck(text string) string {
	var out []rune
	for _, r := range text {
		if r == '\b' && len(out) > 0 {
			out = out[:len(out)-1]
			continue
		}
		out = append(out, r)
	}
	return string(out)
}
