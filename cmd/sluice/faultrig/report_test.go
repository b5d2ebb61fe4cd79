package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestTheTableReplacesTheOneBefore(t *testing.T) {
	name := filepath.Join(t.TempDir(), "guarantees.md")
	if err := os.WriteFile(name, []byte("# Before\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, delivered := range []int{111, 222} {
		rec := newRecord(config{seed: 5})
		rec.Results = []*result{{Name: "node-killed", Delivered: delivered, Seed: 5}}
		if err := rec.writeMarkdown(name); err != nil {
			t.Fatal(err)
		}
	}
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	got := string(text)
	if !strings.HasPrefix(got, "# Before\n") || strings.Count(got, tableBegins) != 1 || strings.Contains(got, "111") || !strings.Contains(got, "| 222 |") {
		t.Errorf("the file is now:\n%s", got)
	}
}

func TestAPartOfARunIsMergedIntoTheWhole(t *testing.T) {
	whole, part := newRecord(config{}), newRecord(config{})
	whole.Results = []*result{{Name: "clients-cut", Lost: 1}, {Name: "node-killed", Lost: 2}, {Name: "of an older version"}}
	part.Results = []*result{{Name: "node-killed"}}
	part.merge(whole)
	if len(part.Results) != 2 || part.Results[0].Lost != 1 || part.Results[1].Lost != 0 {
		t.Errorf("merged: %+v", part.Results)
	}
	if all := part.total(); all.Lost != 1 || all.passed() {
		t.Errorf("the total is %+v", all)
	}
}

func TestWhatIsToBeRunIsListed(t *testing.T) {
	var out bytes.Buffer
	if err := start([]string{"-list", "-run", "^cluster"}, &out); err != nil {
		t.Fatal(err)
	}
	if got := out.String(); !strings.Contains(got, "cluster-slots-moved") || strings.Contains(got, "chaos") {
		t.Errorf("-list says\n%s", got)
	}
	if err := start([]string{"-run", "("}, &out); err == nil {
		t.Error("a pattern that is none was taken")
	}
}
