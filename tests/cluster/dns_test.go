package main

import (
	"strings"
	"testing"
)

func TestTheImageOfTheDNSServerIsNamedAfterItsBuild(t *testing.T) {
	got := dnsImage(programs{"coredns": "/cache/coredns-v1.2.3-0a1b2c/coredns"})
	if want := "patchbay.dev/coredns:v1.2.3-0a1b2c"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestADNSAnswerIsReadFromTheRecordItself(t *testing.T) {
	question := dnsQuestion("a.example")
	if got, want := string(question[dnsHeader:]), "\x01a\x07example\x00\x00\x01\x00\x01"; got != want {
		t.Fatalf("question %q, want %q", got, want)
	}
	const record = "\x00\x01\x00\x01\x00\x00\x00\x05\x00\x04\x0a\x60\x00\x01"
	reply := func(code, answers byte, name, record string) []byte {
		message := append([]byte{}, question...)
		message[2], message[3], message[7] = 0x85, 0x80|code, answers
		return append(message, name+record...)
	}
	for _, name := range []string{"\xc0\x0c", "\x01a\x07example\x00"} {
		if got, err := dnsAnswer(question, reply(0, 1, name, record)); err != nil || got != "10.96.0.1" {
			t.Errorf("name %q: %q, %v", name, got, err)
		}
	}
	ipv6 := strings.Replace(record, "\x00\x01", "\x00\x1c", 1)
	for what, message := range map[string][]byte{
		"no such name":     reply(3, 0, "", ""),
		"an empty answer":  reply(0, 0, "", ""),
		"two answers":      reply(0, 2, "\xc0\x0c", record),
		"an IPv6 record":   reply(0, 1, "\xc0\x0c", ipv6),
		"a cut-off record": reply(0, 1, "\xc0\x0c", record[:9]),
		"another question": append(dnsQuestion("b.example"), record...),
		"nothing":          nil,
	} {
		if got, err := dnsAnswer(question, message); err == nil {
			t.Errorf("%s is read as %q", what, got)
		}
	}
}
