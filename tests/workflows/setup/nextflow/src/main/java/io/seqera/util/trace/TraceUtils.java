package io.seqera.util.trace;

import java.util.UUID;

/** The one method that Nextflow calls of a library that was not published: an id for a log header. */
public final class TraceUtils {
    private TraceUtils() {}

    public static String rndTrace() {
        String random = UUID.randomUUID().toString().replace("-", "");
        return "00-" + random + "-" + random.substring(0, 16) + "-01";
    }
}
