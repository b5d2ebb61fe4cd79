package e2e

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"go.uber.org/goleak"

	"sluice/static/browsertest"
)

// program is sluice, built for these tests, with the race detector in it.
var program string

// chromium is the browser of all tests here that need one.
var chromium browsertest.Chromium

// top is where the project's files are, seen from here.
const top = "../../.."

func TestMain(m *testing.M) { os.Exit(build(m)) }

// build makes the program, runs the tests and takes the program away again.
func build(m *testing.M) int {
	dir, err := os.MkdirTemp("", "sluice-e2e-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	program = filepath.Join(dir, "sluice")
	if out, err := exec.Command("go", "build", "-race", "-o", program, "sluice/cmd/sluice").CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "building sluice: %v\n%s", err, out)
		return 1
	}
	code := m.Run()
	err = chromium.Stop()
	if code != 0 {
		return code
	}
	if err := errors.Join(err, goleak.Find()); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}
