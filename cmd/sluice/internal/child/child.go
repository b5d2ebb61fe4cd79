// Package child is what the programs share that start gateways as processes of
// their own: how the gateway is built, what its environment is, and what it said
// at last.
package child

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
)

// Build builds the gateway from the module of the working directory. The error
// has what the compiler says.
func Build(ctx context.Context, binary string) error {
	if said, err := exec.CommandContext(ctx, "go", "build", "-o", binary, "sluice/cmd/sluice").CombinedOutput(); err != nil {
		return fmt.Errorf("building sluice: %w\n%s", err, said)
	}
	return nil
}

// Environ is the environment of this process without what would change how a
// gateway behaves.
func Environ() []string {
	var kept []string
	for _, e := range os.Environ() {
		if !strings.HasPrefix(e, "SLUICE_") {
			kept = append(kept, e)
		}
	}
	return kept
}

// Tail keeps the end of what a process writes. Its zero value is ready.
type Tail struct {
	mu   sync.Mutex // guards text
	text []byte
}

const kept = 8 << 10 // bytes of a Tail

// Write implements io.Writer. It never fails.
func (t *Tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.text = append(t.text, p...)
	if over := len(t.text) - kept; over > 0 {
		t.text = append(t.text[:0], t.text[over:]...)
	}
	return len(p), nil
}

// String is the end of what was written.
func (t *Tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return string(t.text)
}
