package main

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"patchbay.dev/tests/plugins/go/echo"
)

// modes is the parsed environment.
type modes struct {
	versions       []int
	banner         string
	sleep          time.Duration
	crashAfter     time.Duration
	noise          bool
	flood          int
	health         echo.SetHealthRequest_State
	ignoreShutdown bool
	hangShutdown   bool
	ignoreSigterm  bool
	tls            *tls.Config
}

func modesFromEnvironment() (modes, error) {
	m := modes{
		banner:         os.Getenv("ECHO_BANNER"),
		noise:          os.Getenv("ECHO_NOISE") == "1",
		ignoreShutdown: os.Getenv("ECHO_IGNORE_SHUTDOWN") == "1",
		hangShutdown:   os.Getenv("ECHO_HANG_SHUTDOWN") == "1",
		ignoreSigterm:  os.Getenv("ECHO_IGNORE_SIGTERM") == "1",
	}
	var sleep, crash int
	for name, target := range map[string]*int{
		"ECHO_SLEEP_MS": &sleep, "ECHO_CRASH_AFTER_MS": &crash, "ECHO_FLOOD": &m.flood,
	} {
		if err := number(name, target); err != nil {
			return m, err
		}
	}
	m.sleep = time.Duration(sleep) * time.Millisecond
	m.crashAfter = time.Duration(crash) * time.Millisecond
	for _, text := range strings.Split(or(os.Getenv("ECHO_VERSIONS"), "3,5"), ",") {
		version, err := strconv.Atoi(text)
		if err != nil {
			return m, fmt.Errorf("reading ECHO_VERSIONS: %w", err)
		}
		m.versions = append(m.versions, version)
	}
	health, known := echo.SetHealthRequest_State_value[or(os.Getenv("ECHO_HEALTH"), "SERVING")]
	if !known {
		return m, fmt.Errorf("reading ECHO_HEALTH: %q is no state", os.Getenv("ECHO_HEALTH"))
	}
	m.health = echo.SetHealthRequest_State(health)
	var err error
	m.tls, err = explicitTLS()
	return m, err
}

// tlsProvider is nil without Explicit TLS: any provider would switch AutoMTLS off.
func (m modes) tlsProvider() func() (*tls.Config, error) {
	if m.tls == nil {
		return nil
	}
	return func() (*tls.Config, error) { return m.tls, nil }
}

func explicitTLS() (*tls.Config, error) {
	certificate := os.Getenv("ECHO_TLS_CERT")
	if certificate == "" {
		return nil, nil
	}
	pair, err := tls.LoadX509KeyPair(certificate, os.Getenv("ECHO_TLS_KEY"))
	if err != nil {
		return nil, fmt.Errorf("reading ECHO_TLS_CERT and ECHO_TLS_KEY: %w", err)
	}
	config := &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12}
	if os.Getenv("ECHO_TLS_MAX") == "1.2" {
		config.MaxVersion = tls.VersionTLS12
	}
	if file := os.Getenv("ECHO_TLS_CLIENT_CA"); file != "" {
		data, err := os.ReadFile(file)
		if err != nil {
			return nil, fmt.Errorf("reading ECHO_TLS_CLIENT_CA: %w", err)
		}
		config.ClientCAs = x509.NewCertPool()
		if !config.ClientCAs.AppendCertsFromPEM(data) {
			return nil, fmt.Errorf("reading ECHO_TLS_CLIENT_CA: no certificate in %s", file)
		}
		config.ClientAuth = tls.RequireAndVerifyClientCert
	}
	return config, nil
}

func number(name string, target *int) error {
	text := os.Getenv(name)
	if text == "" {
		return nil
	}
	value, err := strconv.Atoi(text)
	if err != nil || value < 0 {
		return fmt.Errorf("reading %s: %q is no number of 0 or more", name, text)
	}
	*target = value
	return nil
}

func or(text, otherwise string) string {
	if text == "" {
		return otherwise
	}
	return text
}
