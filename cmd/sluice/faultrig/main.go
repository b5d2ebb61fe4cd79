package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"time"

	"sluice/cmd/sluice/internal/child"
	"sluice/fanout/redistest"
)

func main() {
	if err := start(os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "faultrig:", err)
		os.Exit(1)
	}
}

// options are the command line.
type options struct {
	list, verbose          bool
	merge, report          bool
	run, binary            string
	seed                   uint64
	scale                  float64
	chaos                  time.Duration
	jsonFile, markdownFile string
}

func start(args []string, out io.Writer) error {
	var o options
	flags := flag.NewFlagSet("faultrig", flag.ContinueOnError)
	flags.BoolVar(&o.list, "list", false, "say what there is, and do nothing")
	flags.StringVar(&o.run, "run", "", "only the scenarios whose name matches this regular expression")
	flags.Uint64Var(&o.seed, "seed", 0, "what the faults are drawn from; a new one if 0")
	flags.Float64Var(&o.scale, "scale", 1, "make everything shorter (0.2) or longer (3)")
	flags.DurationVar(&o.chaos, "chaos", 0, "how long each chaos lasts, whatever the scale: 1h is a soak")
	flags.StringVar(&o.binary, "sluice", "", "the program to try; built from this module if left out")
	flags.StringVar(&o.jsonFile, "json", "", "write the results to this file")
	flags.StringVar(&o.markdownFile, "markdown", "", "write the table of results into this file, in place of the one there is")
	flags.BoolVar(&o.report, "report", false, "run nothing: make the -markdown of the -json")
	flags.BoolVar(&o.merge, "merge", false, "keep what the file of -json has on scenarios that do not run now")
	flags.BoolVar(&o.verbose, "v", false, "tell each fault of a chaos, and what the rig does")
	if err := flags.Parse(args); errors.Is(err, flag.ErrHelp) {
		return nil
	} else if err != nil {
		return err
	}
	chosen, err := choose(o.run)
	if err != nil {
		return err
	}
	if o.list {
		for _, s := range chosen {
			fmt.Fprintf(out, "%-30s row %-3s %-22s %s\n", s.name, s.row, s.on, s.fault)
		}
		return nil
	}
	if o.report {
		rec, err := readRecord(o.jsonFile)
		if err != nil {
			return err
		}
		return rec.writeMarkdown(o.markdownFile)
	}
	return o.all(chosen, out)
}

// choose gives the scenarios whose name matches.
func choose(pattern string) (chosen []*scenario, err error) {
	wanted, err := regexp.Compile(pattern)
	if err != nil {
		return nil, err
	}
	for _, s := range scenarios() {
		if wanted.MatchString(s.name) {
			chosen = append(chosen, s)
		}
	}
	if len(chosen) == 0 {
		return nil, fmt.Errorf("no scenario is called %q; -list tells their names", pattern)
	}
	return chosen, nil
}

// all runs scenarios one after the other.
func (o *options) all(chosen []*scenario, out io.Writer) error {
	dir, err := workspace()
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	cfg := config{binary: o.binary, seed: o.seed, scale: o.scale, chaos: o.chaos, say: func(string, ...any) {}}
	if cfg.binary == "" {
		cfg.binary = filepath.Join(dir, "sluice")
		if err := child.Build(context.Background(), cfg.binary); err != nil {
			return err
		}
	}
	if cfg.seed == 0 {
		cfg.seed = uint64(rand.Uint32())
	}
	if o.verbose {
		cfg.say = func(format string, args ...any) { fmt.Fprintf(out, format+"\n", args...) }
	}
	fmt.Fprintf(out, "seed %d\n", cfg.seed)
	rec, failed := newRecord(cfg), 0
	for _, s := range chosen {
		res := attempt(cfg, s)
		rec.Results = append(rec.Results, res)
		fmt.Fprintln(out, res.line())
		if !res.passed() {
			failed++
		}
	}
	if len(chosen) > 1 {
		all := rec.total()
		fmt.Fprintln(out, all.line())
	}
	if err := o.save(rec); err != nil {
		return err
	}
	if failed > 0 {
		return fmt.Errorf("%d of %d scenarios failed", failed, len(chosen))
	}
	return nil
}

// attempt runs one scenario. What the rig itself could not do counts as failed.
func attempt(cfg config, s *scenario) *result {
	res := &result{}
	err := redistest.Run(cfg.say, func(t redistest.T) { play(t, cfg, s, res) })
	if err != nil {
		res.Name = s.name
		res.Other++
		res.Wrong = append(res.Wrong, "the rig: "+err.Error())
	}
	return res
}

// workspace is a directory for what is built; Redis' data goes into memory
// where that is possible. A disk that is slow to sync makes Redis with
// "everysec" answer before it has written, and what it answered for may be lost:
// its own bargain, and not what is tried here.
func workspace() (string, error) {
	dir, err := os.MkdirTemp("", "sluice-faultrig-") // not in memory, from where programs may not be run
	if err != nil {
		return "", err
	}
	const memory = "/dev/shm"
	if info, err := os.Stat(memory); err != nil || !info.IsDir() {
		return dir, nil
	}
	return dir, os.Setenv("TMPDIR", memory)
}

// save writes what is to be written down.
func (o *options) save(rec *record) error {
	if o.merge {
		earlier, err := readRecord(o.jsonFile)
		if err != nil {
			return err
		}
		rec.merge(earlier)
	}
	if o.jsonFile != "" {
		f, err := os.Create(o.jsonFile)
		if err != nil {
			return err
		}
		if err := errors.Join(rec.writeJSON(f), f.Close()); err != nil {
			return err
		}
	}
	if o.markdownFile == "" {
		return nil
	}
	return rec.writeMarkdown(o.markdownFile)
}

func readRecord(name string) (*record, error) {
	text, err := os.ReadFile(name)
	if err != nil {
		return nil, fmt.Errorf("-json: %w", err)
	}
	rec := &record{}
	if err := json.Unmarshal(text, rec); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return rec, nil
}
