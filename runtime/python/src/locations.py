"""One spelling for a client's location and port, whatever a plugin hands over.

Plugins pass what `socket.accept` gave them, or text. The other side compares text, so that
10.1.2.3, ::ffff:10.1.2.3 and ("10.1.2.3", 51515) have to become the same.
"""

import ipaddress


def location_text(location):
    """The location as text: an address in its canonical form, else a name in lower case.

    A tuple or list stands for its first element; the port beside it is the client's own and
    says nothing about the job. Raises TypeError for what is neither, ValueError for nothing.
    """
    if isinstance(location, (tuple, list)):
        if not location:
            raise ValueError("the location is an empty tuple; expected (host, port) or text")
        location = location[0]
    if isinstance(location, (ipaddress.IPv4Address, ipaddress.IPv6Address)):
        location = str(location)
    if not isinstance(location, str):
        raise TypeError(
            "the location is of type %s; expected text such as '10.1.2.3', or the address "
            "that accept() returned" % type(location).__name__
        )
    text = location.strip()
    if not text:
        raise ValueError("the location is empty; use request_job() to ask for any location")
    return _canonical(text) or text.lower()


def port_text(port):
    """The port as text, or None for any port. "010000" stays what it is."""
    if port is None or port == "":
        return None
    if isinstance(port, bool) or not isinstance(port, (int, str)):
        raise TypeError(
            "the port is of type %s; expected text such as '10000', or a number"
            % type(port).__name__
        )
    return str(port)


def _canonical(text):
    bare = text[1:-1] if text.startswith("[") and text.endswith("]") else text
    # The zone names an interface of this machine; it means nothing elsewhere.
    bare = bare.partition("%")[0]
    try:
        address = ipaddress.ip_address(bare)
    except ValueError:
        return None
    mapped = getattr(address, "ipv4_mapped", None)
    return str(mapped or address)
