//go:build !linux

// Command scale shows how a gateway grows, on one machine, which has to be Linux's.
package main

import (
	"fmt"
	"os"
)

func main() {
	fmt.Fprintln(os.Stderr, "scale: it reads /proc and connects from many loopback addresses, so it needs Linux")
	os.Exit(1)
}
