package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"unicode/utf8"
)

// row is one line of the table. What is judged is the median of `against` where there is a
// peer, otherwise that of `ours`.
type row struct {
	What string `json:"what"`
	Unit string `json:"unit"`
	Ours series `json:"ours"`
	// Peer names whom we compare with; empty for a number that stands alone.
	Peer    string `json:"peer,omitempty"`
	Theirs  series `json:"theirs"`
	Against series `json:"against"`
	Bar     bar    `json:"bar"`
	Met     bool   `json:"met"`
	// Note is for a reader who wonders about the number.
	Note string `json:"note,omitempty"`
}

// bar is what was promised.
type bar struct {
	AtMost  bool    `json:"at_most"`
	Value   float64 `json:"value"`
	Against string  `json:"of"` // "value", "difference" or "ratio"
}

func atMost(value float64) bar { return bar{AtMost: true, Value: value, Against: "value"} }

func addsAtMost(value float64) bar { return bar{AtMost: true, Value: value, Against: "difference"} }

func ratioAtMost(value float64) bar { return bar{AtMost: true, Value: value, Against: "ratio"} }

func ratioAtLeast(value float64) bar { return bar{Value: value, Against: "ratio"} }

// shown is for a number that nothing was promised about.
func shown() bar { return bar{} }

func (b bar) String() string {
	if b == shown() {
		return ""
	}
	sign, form := "≥", "%s %s"
	if b.AtMost {
		sign = "≤"
	}
	switch b.Against {
	case "difference":
		form = "%s +%s"
	case "ratio":
		form = "%s %s ×"
	}
	return fmt.Sprintf(form, sign, strings.TrimSuffix(strings.TrimRight(fmt.Sprintf("%.2f", b.Value), "0"), "."))
}

// alone is a row without a peer.
func alone(what, unit string, ours series, b bar) row {
	return judged(row{What: what, Unit: unit, Ours: ours, Bar: b})
}

// compared is a row with a peer; the bar says whether difference or ratio counts.
func compared(what, unit string, ours series, peer string, theirs series, b bar) row {
	combine := quotient
	if b.Against == "difference" {
		combine = difference
	}
	return judged(row{
		What: what, Unit: unit, Ours: ours, Peer: peer, Theirs: theirs,
		Against: pairwise(ours, theirs, combine), Bar: b,
	})
}

// comparedByMedian is for sides whose rounds have nothing to do with each other: the medians are
// compared, not the rounds.
func comparedByMedian(what, unit string, ours series, peer string, theirs series, b bar) row {
	r := compared(what, unit, ours, peer, theirs, b)
	r.Against = pairwise(series{ours.median()}, series{theirs.median()}, difference)
	return judged(r)
}

func judged(r row) row {
	number := r.Ours.median()
	if r.Bar.Against != "value" && r.Bar != shown() {
		number = r.Against.median()
	}
	r.Met = number >= r.Bar.Value
	if r.Bar.AtMost {
		r.Met = number <= r.Bar.Value
	}
	return r
}

// show prints the table, and below it the notes.
func show(out io.Writer, rows []row) {
	lines := [][]string{{"what", "ours", "peer", "ours against the peer", "bar", "met"}}
	for _, r := range rows {
		theirs := ""
		if r.Peer != "" {
			theirs = fmt.Sprintf("%s: %s", r.Peer, r.Theirs)
		}
		met := "NO"
		switch {
		case len(r.Ours) == 0:
			met = "not measured"
		case r.Bar == shown():
			met = ""
		case r.Met:
			met = "yes"
		}
		lines = append(lines, []string{r.What + ", " + r.Unit, r.Ours.String(), theirs, r.Against.String(), r.Bar.String(), met})
	}
	widths := make([]int, len(lines[0]))
	for _, line := range lines {
		for column, cell := range line {
			widths[column] = max(widths[column], utf8.RuneCountInString(cell))
		}
	}
	rule := make([]string, len(widths))
	for column, width := range widths {
		rule[column] = strings.Repeat("─", width)
	}
	for _, line := range slices.Insert(lines, 1, rule) {
		for column, cell := range line {
			line[column] = cell + strings.Repeat(" ", widths[column]-utf8.RuneCountInString(cell))
		}
		fmt.Fprintln(out, strings.TrimRight(strings.Join(line, "  "), " "))
	}
	for _, r := range rows {
		if r.Note != "" {
			fmt.Fprintf(out, "\n%s: %s\n", r.What, r.Note)
		}
	}
}

// record writes everything that was measured and returns the file.
func record(folder string, conditions map[string]string, rows []row) (string, error) {
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return "", fmt.Errorf("making the folder of the results: %w", err)
	}
	text, err := json.MarshalIndent(map[string]any{"conditions": conditions, "rows": rows}, "", " ")
	if err != nil {
		return "", fmt.Errorf("writing the results down: %w", err)
	}
	file := filepath.Join(folder, "bench.json")
	return file, os.WriteFile(file, append(text, '\n'), 0o644)
}
