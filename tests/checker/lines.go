package main

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"os"
)

// eachLine hands every complete line of a file to take. A last line without its end was cut off by
// a kill and is left out: whoever wrote it had not finished.
func eachLine(path string, take func([]byte) error) error {
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	defer file.Close()
	reader := bufio.NewReaderSize(file, 1<<20)
	for {
		line, err := reader.ReadBytes('\n')
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if line = bytes.TrimSpace(line); len(line) > 0 {
			if err := take(line); err != nil {
				return err
			}
		}
	}
}
