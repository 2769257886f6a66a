// Says whether a history of registers is linearizable, by github.com/anishathalye/porcupine.
//
//	porcupine-check FILE    exit code 0: it is, 1: it is not, 2: the file cannot be read or decided
//
// The format is that of tests/lib/history.py.
package main

import (
	"bufio"
	"fmt"
	"math"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/anishathalye/porcupine"
)

const timeLimit = 100 * time.Second

type input struct {
	key      string
	kind     string
	value    uint64
	expected uint64
}

// What the client was told.
type output struct {
	known bool
	done  bool
}

var register = porcupine.Model{
	Partition: func(history []porcupine.Operation) [][]porcupine.Operation {
		byKey := map[string][]porcupine.Operation{}
		for _, operation := range history {
			key := operation.Input.(input).key
			byKey[key] = append(byKey[key], operation)
		}
		var parts [][]porcupine.Operation
		for _, part := range byKey {
			parts = append(parts, part)
		}
		return parts
	},
	Init: func() interface{} { return uint64(0) },
	Step: func(state, in, out interface{}) (bool, interface{}) {
		held, asked, told := state.(uint64), in.(input), out.(output)
		switch asked.kind {
		case "put":
			return true, asked.value
		case "get":
			return asked.value == held, held
		}
		sets := asked.expected == held
		if told.known && told.done != sets {
			return false, held
		}
		if sets {
			return true, asked.value
		}
		return true, held
	},
}

func parse(line string) (porcupine.Operation, error) {
	words := strings.Fields(line)
	if len(words) != 8 {
		return porcupine.Operation{}, fmt.Errorf("%d words, not 8", len(words))
	}
	var failure error
	number := func(word string, missing uint64) uint64 {
		if word == "-" {
			return missing
		}
		value, err := strconv.ParseUint(word, 10, 63)
		if err != nil {
			failure = err
		}
		return value
	}
	kind := words[2]
	if kind != "put" && kind != "get" && kind != "cas" {
		return porcupine.Operation{}, fmt.Errorf("there is no operation %q", kind)
	}
	operation := porcupine.Operation{
		ClientId: int(number(words[0], 0)),
		Input:    input{words[1], kind, number(words[3], 0), number(words[4], 0)},
		Output:   output{words[5] != "?", words[5] == "ok"},
		Call:     int64(number(words[6], 0)),
		Return:   int64(number(words[7], math.MaxInt64)),
	}
	return operation, failure
}

func read(path string) ([]porcupine.Operation, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	var history []porcupine.Operation
	lines := bufio.NewScanner(file)
	for number := 1; lines.Scan(); number++ {
		operation, err := parse(lines.Text())
		if err != nil {
			return nil, fmt.Errorf("%s:%d: %w", path, number, err)
		}
		// An unanswered read says nothing.
		if operation.Input.(input).kind != "get" || operation.Output.(output).known {
			history = append(history, operation)
		}
	}
	return history, lines.Err()
}

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: porcupine-check FILE")
		os.Exit(2)
	}
	history, err := read(os.Args[1])
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
	verdict := porcupine.CheckOperationsTimeout(register, history, timeLimit)
	fmt.Printf("porcupine: %s, %d operations\n", verdict, len(history))
	switch verdict {
	case porcupine.Ok:
	case porcupine.Illegal:
		os.Exit(1)
	default:
		os.Exit(2)
	}
}
