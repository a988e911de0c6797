// What the conformance suite's mesh tests run in their pods, in the place of its image echo-advanced, whose source no module proxy serves.
// One program under two names: `server` answers with what it was asked, and `client`, which the suite executes in the same pods, asks and
// prints the answers in lines `Name=value` that the suite reads (conformance/utils/echo/parse.go says which).
package main

import (
	"fmt"
	"os"
	"path/filepath"
)

func main() {
	run := serve
	if filepath.Base(os.Args[0]) == "client" {
		run = ask
	}
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
