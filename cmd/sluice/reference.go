package main

import (
	"io"
	"runtime/debug"
	"time"

	"github.com/alecthomas/kong"

	"sluice/cmd/sluice/internal/reference"
)

// completionCmd is `sluice completion bash`.
type completionCmd struct {
	Shell string `arg:"" enum:"bash,zsh,fish" help:"The shell: bash, zsh or fish."`
}

// Help tells where a shell looks for what is printed.
func (completionCmd) Help() string {
	return `For this session: source <(sluice completion bash), the same in zsh after compinit, or sluice completion fish | source.

For all: write it to /etc/bash_completion.d/sluice, to _sluice in a folder of zsh's $fpath, or to ~/.config/fish/completions/sluice.fish.`
}

// Run prints the script.
func (c *completionCmd) Run(ctx *kong.Context, p *process) error {
	script, err := reference.Completion(ctx.Model, c.Shell)
	if err != nil {
		return err
	}
	_, err = io.WriteString(p.stdout, script)
	return err
}

// manCmd is `sluice man`.
type manCmd struct{}

// Help tells what to do with the page.
func (manCmd) Help() string {
	return "To read it: sluice man | man -l -. To install it, write it to /usr/local/share/man/man1/sluice.1."
}

// Run prints the page.
func (manCmd) Run(ctx *kong.Context, p *process) error {
	page := reference.Manual(ctx.Model, reference.About{Version: "sluice " + version(), Date: built(), Help: helpText, Parts: manualParts()})
	_, err := io.WriteString(p.stdout, page)
	return err
}

// built is the day of the commit that the program was made from, so that the
// same source gives the same page; today, if that is not known.
func built() time.Time {
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, s := range info.Settings {
			if at, err := time.Parse(time.RFC3339, s.Value); s.Key == "vcs.time" && err == nil {
				return at
			}
		}
	}
	return time.Now()
}

// manualParts is what holds for all commands, and no flag says.
func manualParts() []reference.Part {
	return []reference.Part{
		{Title: "CONFIGURATION", Text: []string{
			"A flag takes its value from the command line, else from its variable of the environment, else from the file of --config, else it has its default. A variable that is empty counts as not set.",
			"The file is YAML: flags by their names, without dashes in front, and under namespaces the settings of those. Flags for which no variable is named above are for the command line only.",
		}},
		{Title: "EXIT STATUS", Text: []string{
			"0 when the work was done, 1 when it failed, and 2 when the command line, the environment or the file was wrong. doctor exits with 1 if the way is not good.",
		}},
		{Title: "SEE ALSO", Text: []string{"curl(1), redis-server(1)"}},
	}
}
