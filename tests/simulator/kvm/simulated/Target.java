package simulated;

import java.util.ArrayList;
import java.util.Arrays;
import java.util.HashMap;
import java.util.List;
import java.util.Map;

/** Where a viewer connects to and what it says there, from the arguments that its vendor gives it. */
public final class Target {
    final String host;
    final String token;
    final int port;

    public Target(String host, String token, String port) {
        this.host = host;
        this.token = token;
        this.port = Integer.parseInt(port);
    }

    /** Host, user's token, password's token, null, port. */
    public static Target aten(String[] args) {
        return new Target(args[0], args[2], args[4]);
    }

    /** Pairs of -name and value; older ones: host, port, token. */
    public static Target ami(String[] args) {
        return args[0].startsWith("-") ? named(args) : new Target(args[0], args[2], args[1]);
    }

    /** Colour depth, host, user, one-time secret; then the port, which the real one has in the program. */
    public static Target sun(String[] args) {
        return new Target(args[1], args[3], args[4]);
    }

    /** Host, port, token. */
    public static Target plain(String[] args) {
        return new Target(args[0], args[2], args[1]);
    }

    /** Pairs of name=value, or of -name and value. */
    public static Target named(String[] args) {
        Map<String, String> values = new HashMap<String, String>();
        List<String> rest = new ArrayList<String>(Arrays.asList(args));
        while (!rest.isEmpty()) {
            String word = rest.remove(0);
            int sign = word.indexOf('=');
            if (word.startsWith("-") && !rest.isEmpty()) {
                values.put(word.substring(1), rest.remove(0));
            } else if (sign > 0) {
                values.put(word.substring(0, sign), word.substring(sign + 1));
            }
        }
        String token = first(values, "kvmtoken", "passwd", "httpdata", "user");
        return new Target(
            first(values, "ip", "hostname", "ipaddress", "cimcAddr", "host"),
            token != null && token.startsWith("0x") ? token.substring(2) : token,
            first(values, "kmport", "kvmport", "VncPort", "port"));
    }

    private static String first(Map<String, String> values, String... names) {
        for (String name : names) {
            String value = values.get(name);
            if (value != null && !value.isEmpty()) {
                return value;
            }
        }
        return null;
    }
}
